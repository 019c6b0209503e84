"""The strategy `auto`: each line of its table, what a user's own choices change, and the record."""

from __future__ import annotations

import dataclasses

import pytest

import backends
from common.contract.watch import Quiet
from common.data.folder import ImageData
from common.method import auto, feature_reuse, phases
from common.spec.experiment import ExperimentSpec, StageMultiples
from common.system.errors import UserError
from tests.common.runs.test_experiment import read_checked
from tests.conftest import write_pictures
from tests.fake_backend import FakeBackend
from tests.run_experiment import run_experiment


def with_images(data: ImageData, per_class: int) -> ImageData:
    return dataclasses.replace(data, train=data.train[:1] * (per_class * len(data.classes)))


@pytest.mark.parametrize(
    ("domain", "images", "strategy", "rates"),
    [
        # Early, late, head: a rate of 0 freezes.
        ("similar", 10, "feature-extraction", (0, 0, 3e-3)),
        ("similar", 299, "feature-extraction", (0, 0, 3e-3)),
        ("similar", 300, "discriminative", (3e-5, 3e-4, 3e-3)),
        ("similar", 10_000, "discriminative", (3e-5, 3e-4, 3e-3)),
        ("similar", 10_001, "fine-tune", (1e-4, 1e-4, 1e-3)),
        ("different", 10, "discriminative", (1e-5, 1e-4, 1e-3)),
        ("different", 10_000, "discriminative", (1e-5, 1e-4, 1e-3)),
        ("different", 10_001, "scratch", (1e-3, 1e-3, 1e-3)),
    ],
)
def test_the_table(pictures, domain, images, strategy, rates) -> None:
    spec = ExperimentSpec(
        strategy="auto", domain=domain, flip=False, stage_multiples=StageMultiples(layer1=5), learning_rate=7.0
    )  # fmt: skip
    resolved, choice = auto.resolve(spec, with_images(pictures, images))
    assert resolved.strategy == choice.strategy == strategy
    assert choice.images_per_class == images
    (phase,) = phases.phases(resolved)
    found = [resolved.learning_rate * phase.multiples[stage] for stage in ("layer1", "layer4", "head")]
    assert found == pytest.approx(rates)
    assert (resolved.optimizer, resolved.loss_reduction, resolved.batch_size) == ("adam", "mean", 32)
    assert resolved.flip == (strategy == "discriminative")
    # Few images are not augmented, so that their features are computed once.
    assert feature_reuse.reused(resolved, phase) == (strategy == "feature-extraction")
    assert "\n" not in choice.why
    assert choice.why.endswith(f"{max(rates):g} from " + ("stem" if strategy == "scratch" else "head"))
    assert f"{images:,} training images a class" in choice.why


def test_what_the_user_names_stays(pictures) -> None:
    spec = ExperimentSpec(strategy="auto", learning_rate=3e-3, optimizer="momentum", batch_size=4)
    resolved, choice = auto.resolve(spec, pictures, {"learning_rate", "optimizer", "epochs"})
    assert (resolved.learning_rate, resolved.optimizer, resolved.batch_size) == (3e-3, "momentum", 32)
    assert choice.why.endswith("; as given: epochs, learning_rate, optimizer")
    assert "momentum, learning rate 0.003 from head;" in choice.why
    assert not {"learning_rate", "optimizer", "epochs"} & set(choice.set)


def test_auto_is_no_strategy_by_itself() -> None:
    with pytest.raises(UserError, match="--strategy"):
        phases.phases(ExperimentSpec(strategy="auto"))


def test_five_classes_from_auto_to_record(monkeypatch, tmp_path) -> None:
    """With class weights, smoothing, validation images and the best epoch kept."""
    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    notes = []

    class Note(Quiet):
        def on_note(self, text: str) -> None:
            notes.append(text)

    root = write_pictures(tmp_path / "flowers", ["daisy", "dandelion", "rose", "sunflower", "tulip"], train=6, test=2)
    # An unequal number of images.
    for path in sorted((root / "train" / "rose").iterdir())[4:]:
        path.unlink()
    spec = ExperimentSpec(
        data=str(root), strategy="auto", image_size=64, epochs=2, workers=0, class_weights="balanced",
        label_smoothing=0.1, validation=0.25, keep="best",
    )  # fmt: skip
    run_experiment(spec, tmp_path / "out", Note(), given={"epochs"})
    read = read_checked(tmp_path / "out")
    # 19 of 28 images train: 4 of each class, 3 roses.
    assert read.data["train_images"] == 19
    assert read.resolved["auto"]["images_per_class"] == 3
    assert notes[:2] == [f"flowers: {read.data['summary']}", read.resolved["auto"]["why"]]
    # So is what is done about features, and that the weights were made for other sizes.
    assert len(notes) == 4
    assert (read.spec.strategy, read.spec.classes, read.spec.optimizer) == ("feature-extraction", 5, "adam")
    assert read.resolved["auto"]["set"]["learning_rate"] == read.spec.learning_rate == 3e-3
    assert read.model["head_shape"] == [5, 512]
