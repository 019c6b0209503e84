"""Events for TensorBoard, read back by TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import backends
from common.contract.watch import Watch
from common.runs.record import RunRecord
from common.spec.experiment import ExperimentSpec
from tests.fake_backend import FakeBackend
from tests.run_experiment import run_experiment


def run(pictures, folder: Path, **changes) -> RunRecord:
    spec = ExperimentSpec(data=str(pictures.root), image_size=64, batch_size=8, epochs=2, workers=0, **changes)
    return run_experiment(spec, folder, Watch(), overwrite=True, tensorboard=True)


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def test_the_scalars_are_the_record_s(monkeypatch: pytest.MonkeyPatch, pictures, tmp_path: Path) -> None:
    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    record = run(pictures, tmp_path)
    found = events(tmp_path)
    fields = {
        "loss/train": "loss",
        "loss/test": "test_loss",
        "accuracy/train": "train_accuracy",
        "accuracy/test": "test_accuracy",
        "images_per_second": "images_per_second",
    }
    assert set(found.Tags()["scalars"]) == set(fields)
    for tag, name in fields.items():
        assert [event.step for event in found.Scalars(tag)] == [1, 2]
        written = [event.value for event in found.Scalars(tag)]
        assert written == pytest.approx([getattr(metrics, name) for metrics in record.epochs], rel=1e-6)
    assert found.Tags()["tensors"] == ["spec/text_summary"]


def test_a_second_run_leaves_no_events_of_the_first(monkeypatch: pytest.MonkeyPatch, pictures, tmp_path: Path) -> None:
    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    run(pictures, tmp_path)
    run(pictures, tmp_path, learning_rate=0.1)
    assert len(events(tmp_path).Scalars("loss/train")) == 2
