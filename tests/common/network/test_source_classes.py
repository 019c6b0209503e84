"""Zero-shot answers and heads from the source's classes, with a backend of NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import backends
from common.batches.shared import SharedBatches
from common.contract.watch import Quiet
from common.network import imagenet, resnet, source_classes, weights
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.training import evaluation
from tests.common.runs.test_experiment import read_checked
from tests.conftest import write_pictures
from tests.fake_backend import FakeBackend
from tests.run_experiment import make_experiment, run_experiment

NAMES = ("tench", "hotdog", "head cabbage", "cardigan", "Cardigan")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """Notes the networks it builds."""

    class Noting(FakeBackend):
        def build_models(self, spec):
            self.models = super().build_models(spec)
            generator = np.random.default_rng(3)
            for model in (self.models.pretrained, self.models.fine_tune):
                bias = model.arrays["fc.bias"]
                bias[:] = generator.standard_normal(bias.shape)
            return self.models

    backend = Noting()
    monkeypatch.setattr(backends, "load", lambda name: backend)
    return backend


@pytest.fixture
def spec(pictures) -> ExperimentSpec:
    return ExperimentSpec(data=str(pictures.root), image_size=64, batch_size=8, epochs=2, workers=0)


def test_one_class_may_stand_for_everything_else() -> None:
    assert source_classes.match(("hotdog", "not-hotdog"), NAMES) == [[1], [0, 2, 3, 4]]
    assert source_classes.match(("other", "Hot_dog", "tench"), NAMES) == [[2, 3, 4], [1], [0]]
    assert source_classes.match(("HEAD-CABBAGE", "cardigan"), NAMES) == [[2], [3]]
    assert source_classes.match(("CARDIGAN", "tench"), NAMES) == [[3, 4], [0]]


def test_the_rest_may_be_named() -> None:
    assert source_classes.match(("hotdog", "food"), NAMES, ("head cabbage",)) == [[1], [2]]
    with pytest.raises(UserError, match="'hed cabage'.*'head cabbage'"):
        source_classes.match(("hotdog", "food"), NAMES, ("hed cabage",))
    with pytest.raises(UserError, match="nothing to set"):
        source_classes.match(("hotdog", "tench"), NAMES, ("head cabbage",))


def test_classes_that_were_not_found_are_named() -> None:
    with pytest.raises(UserError, match="'rose', 'tulip'"):
        source_classes.match(("hotdog", "rose", "tulip"), NAMES)
    with pytest.raises(UserError, match="none is left"):
        source_classes.match(("hotdog", "tench", "other"), ("hotdog", "tench"))


def test_grouped_logits_have_the_sums_of_the_probabilities() -> None:
    # Near each other, and so large that exp overflows.
    logits = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    logits[3:] *= 1000
    rows = source_classes.match(("hotdog", "not-hotdog"), NAMES)
    grouped = source_classes.group_logits(logits, rows)
    assert grouped.dtype == np.float32
    probabilities = np.exp(logits - logits.max(1, keepdims=True).astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    sums = np.stack([probabilities[:, 1], probabilities[:, [0, 2, 3, 4]].sum(1)], axis=1)
    of_two = np.exp(grouped.astype(np.float64) - grouped.max(1, keepdims=True))
    np.testing.assert_allclose(of_two / of_two.sum(1, keepdims=True), sums, rtol=1e-5, atol=1e-12)


def test_zero_shot_leaves_a_record_and_predictions(fake, spec, pictures, tmp_path) -> None:
    run_experiment(spec.replace(strategy="zero-shot", validation=0.3), tmp_path / "out", Quiet())
    read = read_checked(tmp_path / "out")
    assert read.status == "complete"
    assert (read.epochs, read.spec.epochs, read.kept_epoch) == ([], 0, None)
    assert (read.model["trained_parameters"], read.model["head_shape"][0], read.model["file"]) == (0, 1000, None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.npz", "record.json"]
    assert set(read.final) == {"test_loss", "test_accuracy", "validation_loss", "validation_accuracy"}
    stored = np.load(tmp_path / "out" / "predictions.npz")
    assert stored["logits"].shape == (14, 2)
    assert read.final["test_accuracy"] == (stored["logits"].argmax(1) == stored["labels"]).mean()
    # The hot dog's logit is the source's own.
    experiment = make_experiment(fake, spec, pictures)
    said = evaluation.predict(experiment, fake.models.pretrained, pictures.test, SharedBatches(experiment))
    np.testing.assert_allclose(stored["logits"][:, 0], said.logits[:, imagenet.HOTDOG], rtol=1e-6)


@pytest.mark.parametrize("changes", [{"strategy": "zero-shot"}, {"head_init": "source-class"}])
def test_five_classes_without_namesakes_are_refused_before_anything_is_written(fake, tmp_path, changes) -> None:
    names = ["dandelion", "daisy", "rose", "sunflower", "tulip"]
    root = write_pictures(tmp_path / "flowers", names, train=2, test=1)
    with pytest.raises(UserError, match="'dandelion', 'rose', 'sunflower', 'tulip'; only one"):
        run_experiment(ExperimentSpec(data=str(root), image_size=64, workers=0, **changes), tmp_path / "out", Quiet())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wanted", "rest"), [((), [i for i in range(1000) if i != 934]), (("pizza", "bagel"), [963, 931])]
)
def test_a_head_starts_with_the_sources_rows(fake, spec, tmp_path, wanted: tuple[str, ...], rest: list[int]) -> None:
    changed = spec.replace(head_init="source-class", head_init_classes=wanted, epochs=0)
    run_experiment(changed, tmp_path / "out", Quiet())
    source, head = fake.models.pretrained.arrays, fake.models.fine_tune.arrays
    for name in ("fc.weight", "fc.bias"):
        np.testing.assert_array_equal(head[name][0], source[name][934])
        np.testing.assert_allclose(head[name][1], source[name][rest].mean(axis=0), rtol=1e-4, atol=1e-7)
    assert [imagenet.class_names()[index] for index in (963, 931)] == ["pizza", "bagel"]
    assert read_checked(tmp_path / "out").spec == changed


def test_training_from_scratch_needs_no_namesakes(fake, spec, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "flowers", ["rose", "tulip"], train=2, test=1)
    changed = spec.replace(head_init="source-class", strategy="scratch", weights="none", data=str(root), epochs=0)
    run_experiment(changed, tmp_path / "out", Quiet())
    start = FakeBackend().build_models(changed).scratch.arrays["fc.weight"]
    np.testing.assert_array_equal(fake.models.scratch.arrays["fc.weight"], start)


@pytest.mark.parametrize("changes", [{"strategy": "zero-shot"}, {"head_init": "source-class"}])
def test_only_what_uses_the_sources_head_needs_one(fake, spec, tmp_path: Path, changes: dict[str, str]) -> None:
    path = tmp_path / "backbone.safetensors"
    arrays = resnet.initial_network("resnet18", 2, 0)
    backbone = {name: array for name, array in arrays.items() if not name.startswith("fc.")}
    weights.write(path, weights.Checkpoint(weights.Header("resnet18", (), weights.Preprocessing(), "test"), backbone))
    for strategy in ("fine-tune", "feature-extraction", "lora"):
        run_experiment(spec.replace(weights=str(path), strategy=strategy, epochs=0), tmp_path / strategy, Quiet())
    with pytest.raises(UserError, match="backbone without one; choose another strategy"):
        run_experiment(spec.replace(weights=str(path), **changes), tmp_path / "out", Quiet())
    assert not (tmp_path / "out").exists()
