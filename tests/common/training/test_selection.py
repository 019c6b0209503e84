"""Validation images, early stopping and the best epoch, with a backend of NumPy."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from common.contract.results import EpochMetrics, History, Predictions
from common.contract.watch import Quiet, describe
from common.data import splits
from common.data.folder import ImageData, read_folder
from common.method import loss, phases
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.training import evaluation
from tests.conftest import write_pictures
from tests.fake_backend import FakeBackend
from tests.run_experiment import run_experiment


@pytest.fixture
def spec(pictures: ImageData) -> ExperimentSpec:
    return ExperimentSpec(data=str(pictures.root), image_size=64, batch_size=8, epochs=6, workers=0, validation=0.3)


def losses_are(monkeypatch: pytest.MonkeyPatch, data: ImageData, losses: list[float]) -> None:
    """Let the validation losses of the epochs be these; test losses fall all the time."""
    whole = evaluation.predict
    seen = iter(losses)

    class Fixed(Predictions):
        loss = property(lambda self: self.__dict__["fixed"])  # type: ignore[assignment]

    def predict(experiment, model, samples, batches) -> Predictions:
        result = whole(experiment, model, samples, batches)
        if samples is not data.validation:
            return result
        fixed = Fixed(result.logits, result.labels)
        fixed.__dict__["fixed"] = next(seen)
        return fixed

    monkeypatch.setattr(evaluation, "predict", predict)


def test_the_split_is_stratified_seeded_and_complete(tmp_path) -> None:
    whole = read_folder(write_pictures(tmp_path, ["a", "b", "c"], train=10, test=2), progress=False)
    spec = ExperimentSpec(validation=0.2)
    data = splits.split(whole, spec)
    for part, count in ((data.train, 8), (data.validation, 2)):
        assert collections.Counter(sample.label for sample in part) == {0: count, 1: count, 2: count}
    assert set(data.train) | set(data.validation) == set(whole.train)
    assert data.fingerprint == whole.fingerprint
    assert data.test == whole.test
    assert splits.split(whole, spec) == data
    assert splits.split(whole, spec.replace(seed=1)).validation != data.validation
    # The classes draw for themselves.
    assert len({tuple(s.path.name for s in data.validation if s.label == label) for label in range(3)}) > 1
    assert splits.split(whole, spec.replace(validation=0.0)) is whole


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_class_without_images_for_one_part_is_refused(pictures, spec, fraction) -> None:
    with pytest.raises(UserError, match="--validation .* of the 11 .* 'hotdog'"):
        splits.split(pictures, spec.replace(validation=fraction))


def run_losses(monkeypatch, pictures, spec, losses) -> tuple[History, FakeBackend, object]:
    backend, data = FakeBackend(), splits.split(pictures, spec)
    losses_are(monkeypatch, data, losses)
    model = backend.build_models(spec).fine_tune
    return backend.train_fine_tuning(model, spec, data, watch=Quiet()), backend, model


def test_patience_ends_training(monkeypatch, pictures, spec) -> None:
    losses = [0.9, 0.8, 0.85, 0.8, 0.1, 0.1]
    history, _, _ = run_losses(monkeypatch, pictures, spec.replace(early_stopping=2), losses)
    assert [metrics.validation_loss for metrics in history.epochs] == [0.9, 0.8, 0.85, 0.8]
    assert history.stopped_early
    assert history.kept_epoch == 4


def test_a_loss_that_falls_is_not_stopped(monkeypatch, pictures, spec) -> None:
    history, _, _ = run_losses(monkeypatch, pictures, spec.replace(early_stopping=1), [6, 5, 4, 3, 2, 2.5])
    assert len(history.epochs) == 6
    assert not history.stopped_early


def test_patience_begins_anew_with_a_phase(monkeypatch, pictures, spec) -> None:
    changed = spec.replace(strategy="warm-up", warm_up_epochs=3, early_stopping=1)
    history, _, _ = run_losses(monkeypatch, pictures, changed, [0.5, 0.6, 0.9, 0.8, 0.7])
    assert [metrics.phase for metrics in history.epochs] == ["head"] * 2 + ["everything"] * 3
    assert history.stopped_early


def test_the_best_epoch_is_put_back(monkeypatch, pictures, spec) -> None:
    after: list[np.ndarray] = []

    class Note(Quiet):
        def on_epoch(self, metrics, predictions) -> None:
            after.append(model.arrays["fc.weight"].copy())

    changed = spec.replace(keep="best")
    backend, data = FakeBackend(), splits.split(pictures, changed)
    model = backend.build_models(changed).fine_tune
    losses_are(monkeypatch, data, [0.9, 0.5, 0.7, 0.5, 0.6, 0.8])
    history = backend.train_fine_tuning(model, changed, data, watch=Note())
    assert history.kept_epoch == 2
    np.testing.assert_array_equal(model.arrays["fc.weight"], after[1])
    assert not np.array_equal(after[1], after[5])
    assert history.test.loss == history.epochs[1].test_loss
    # What is reported is what the model that was put back says.
    again = backend.train_fine_tuning(
        model, changed.replace(epochs=0, keep="last", validation=0.0), pictures, watch=Quiet()
    )
    np.testing.assert_array_equal(history.test.logits, again.test.logits)


def test_the_record_says_what_was_kept(monkeypatch, spec, tmp_path) -> None:
    import backends
    from tests.common.runs.test_experiment import read_checked

    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    run_experiment(spec.replace(keep="best", epochs=3), tmp_path / "out", Quiet())
    read = read_checked(tmp_path / "out")
    assert (read.data["train_images"], read.data["validation_images"], read.data["test_images"]) == (16, 6, 14)
    kept = min(read.epochs, key=lambda metrics: metrics.validation_loss)
    assert read.kept_epoch == kept.epoch
    assert read.stopped_early is False
    assert read.final == {
        "test_loss": kept.test_loss, "test_accuracy": kept.test_accuracy,
        "validation_loss": kept.validation_loss, "validation_accuracy": kept.validation_accuracy,
    }  # fmt: skip


def test_the_epoch_line_has_the_validation_accuracy() -> None:
    metrics = EpochMetrics(1, "everything", 0.5, 0.75, 0.4, 0.8, 1.0, 10.0)
    assert describe(metrics) == "epoch 1, loss 0.500, train acc 0.750, test acc 0.800"
    with_validation = EpochMetrics(1, "everything", 0.5, 0.75, 0.4, 0.8, 1.0, 10.0, 0.3, 0.9)
    assert "train acc 0.750, val acc 0.900, test acc" in describe(with_validation)


def test_targets_are_the_identity_without_weights_and_smoothing() -> None:
    np.testing.assert_array_equal(loss.target_table(ExperimentSpec(classes=3)), np.eye(3))


def test_balanced_targets_weigh_every_class_alike() -> None:
    spec = ExperimentSpec(classes=3, class_weights="balanced", label_smoothing=0.3)
    table = loss.target_table(spec, [10, 20, 70])
    np.testing.assert_allclose(table.sum(1) * [10, 20, 70], [100 / 3] * 3)
    np.testing.assert_allclose(table[1] / table[1].sum(), [0.1, 0.8, 0.1])
    with pytest.raises(ValueError, match="3 classes"):
        loss.target_table(spec)


def test_the_trainer_gets_the_counts_after_the_split_and_the_schedules_factors(monkeypatch, pictures, spec) -> None:
    seen: dict[str, list] = {"counts": [], "factors": []}

    class Notes(FakeBackend.Trainer):
        def __init__(self, model, spec, phase, class_counts=None) -> None:
            super().__init__(model, spec, phase, class_counts)
            seen["counts"].append(class_counts)

        def train_step(self, images, labels, rate_factor=1.0) -> None:
            super().train_step(images, labels, rate_factor)
            seen["factors"].append(rate_factor)

    monkeypatch.setattr(FakeBackend, "Trainer", Notes)
    changed = spec.replace(strategy="warm-up", warm_up_epochs=2, epochs=3, schedule="cosine", class_weights="balanced")
    run_losses(monkeypatch, pictures, changed, [3, 2, 1])
    assert seen["counts"] == [(8, 8), (8, 8)]
    # 16 images in batches of 8: a cosine over 4 steps for the head, and another over the 2 that follow.
    assert seen["factors"] == pytest.approx([1, 0.853553, 0.5, 0.146447, 1, 0.5], abs=1e-6)
    assert len(phases.phases(changed)) == 2
