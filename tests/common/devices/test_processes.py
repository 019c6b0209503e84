"""Sharing batches among devices and processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

import backends
from common.batches import features, shared
from common.contract.watch import Silent, Watch
from common.data.folder import ImageData
from common.devices import processes
from common.devices.processes import ALONE, World
from common.preprocessing import random_streams, transforms
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from tests.fake_backend import FakeBackend
from tests.run_experiment import make_experiment, run_experiment


def be(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Make this process one of several."""
    for name, value in World(rank, size, rank, size, "localhost:29500").variables().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def spec(pictures: ImageData) -> ExperimentSpec:
    return ExperimentSpec(
        data=str(pictures.root), image_size=64, resize_size=72, batch_size=8, devices=4, epochs=1, workers=0
    )


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 3, 4, 8, 11, 12])
def test_shares_make_up_the_batch_or_are_all_of_it(size: int, count: int) -> None:
    shares = [list(range(count))[processes.share(count, World(rank, size), 4)] for rank in range(size)]
    if count % 4:
        assert shares == [list(range(count))] * size
    else:
        assert sum(shares, []) == list(range(count))
        assert {len(share) for share in shares} == {count // size}


@pytest.mark.parametrize("count", [1, 3, 4, 11])
def test_shares_to_test_repeat_the_last_sample(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    shares = []
    for rank in range(2):
        be(monkeypatch, rank, 2)
        shares.append(list(processes.share_to_test(range(count), 4)))
    assert sum(shares, []) == [*range(count), *[count - 1] * (-count % 4)]
    assert len(shares[0]) == len(shares[1])


def test_one_process_has_whole_batches_as_they_are() -> None:
    batch = list(range(11))
    assert processes.share_to_train(batch, 4) == batch
    assert processes.share_to_train(batch[:8], 4) == batch[:8]
    assert processes.share_to_test(batch, 4) is batch


def test_the_world_is_that_of_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.world() == ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert processes.world() == ALONE
    expected = World(5, 8, 1, 4, "10.0.0.5:29500")
    for name, value in expected.variables().items():
        monkeypatch.setenv(name, value)
    assert processes.world() == expected
    assert not expected.leads
    assert World(0, 8).leads
    # A launcher of one process a machine need not number it.
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert processes.world() == World(5, 8, 0, 1, "10.0.0.5:29500")


@pytest.mark.parametrize(
    "changes",
    [
        {"RANK": None}, {"RANK": "2"}, {"RANK": "-1"}, {"RANK": "first"}, {"MASTER_ADDR": None}, {"MASTER_PORT": "x"},
        {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "3"},
    ],
)  # fmt: skip
def test_variables_that_make_no_world_are_refused(monkeypatch: pytest.MonkeyPatch, changes: dict) -> None:
    be(monkeypatch, 0, 2)
    for name, value in changes.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="torchrun"):
        processes.world()


@pytest.mark.parametrize(
    ("backend", "devices", "size", "message"),
    [
        ("torch", 2, 1, "python -m scripts.run"), ("torch", 4, 2, "--devices 2"), ("torch", 1, 2, "--devices 2"),
        ("jax", 3, 2, "multiple"), ("jax", 1, 2, "multiple"), ("keras", 2, 2, "--backend torch or jax"),
        ("mxnet", 2, 2, "--backend torch or jax"),
    ],
)  # fmt: skip
def test_processes_that_do_not_fit_the_devices_are_refused(monkeypatch, backend, devices, size, message) -> None:
    if size > 1:
        be(monkeypatch, 0, size)
    spec = ExperimentSpec(backend=backend, devices=devices, batch_size=12)
    with pytest.raises(UserError, match=message):
        processes.world_of(spec)


@pytest.mark.parametrize(
    ("backend", "devices", "size", "here"),
    [
        ("torch", 1, 1, 1),
        ("torch", 2, 2, 1),
        ("jax", 4, 1, 4),
        ("jax", 4, 2, 2),
        ("keras", 2, 1, 2),
        ("mxnet", 3, 1, 3),
    ],
)
def test_each_process_drives_its_devices(monkeypatch, backend, devices, size, here) -> None:
    if size > 1:
        be(monkeypatch, 0, size)
    assert processes.local_devices(ExperimentSpec(backend=backend, devices=devices, batch_size=12)) == here


def whole_and_shares(monkeypatch, batches_of) -> tuple[list, list[list]]:
    """The batches of one process, and those of each of two."""
    whole, shares = list(batches_of()), []
    for rank in range(2):
        be(monkeypatch, rank, 2)
        shares.append(list(batches_of()))
    return whole, shares


def test_training_batches_are_shared(monkeypatch, spec, pictures) -> None:
    """Of 22 images in batches of 8 for 4 devices the last 6 go to every process."""
    transform = transforms.transform_for(spec)
    whole, shares = whole_and_shares(monkeypatch, lambda: shared.train_batches(spec, transform, pictures.train, 1))
    assert [len(labels) for _, labels in whole] == [8, 8, 6]
    for number, (images, labels) in enumerate(whole):
        for own in shares:
            np.testing.assert_array_equal(own[number][1], labels)
        parts = [own[number][0] for own in shares]
        if number < 2:
            np.testing.assert_array_equal(np.concatenate(parts), images)
        else:
            for part in parts:
                np.testing.assert_array_equal(part, images)


def test_batches_to_evaluate_are_filled_up_and_shared(monkeypatch, spec, pictures) -> None:
    transform = transforms.transform_for(spec)
    whole, shares = whole_and_shares(monkeypatch, lambda: shared.test_batches(spec, transform, pictures.test))
    assert [len(labels) for _, labels in whole] == [8, 6]
    for number, (images, labels) in enumerate(whole):
        for own in shares:
            np.testing.assert_array_equal(own[number][1], labels)
        together = np.concatenate([own[number][0] for own in shares])
        assert len(together) == 8
        np.testing.assert_array_equal(together[: len(labels)], images)
        np.testing.assert_array_equal(together[len(labels) :], np.repeat(images[-1:], 8 - len(labels), axis=0))


class Gathering(FakeBackend):
    """A backend whose features are those of all processes: as if the others computed what this one does."""

    def feature_extractor(self, model):
        extract = super().feature_extractor(model)
        return lambda images: np.concatenate([extract(images)] * processes.world().size)


def test_several_processes_leave_no_features_behind(monkeypatch, spec) -> None:
    assert features.cache_for(spec) is not None
    be(monkeypatch, 1, 2)
    assert features.cache_for(spec) is None


def test_features_are_kept_of_every_sample_and_shared(monkeypatch, spec, pictures) -> None:
    still = spec.replace(strategy="feature-extraction", train_crop="none", flip=False)
    backend = Gathering()
    experiment = make_experiment(backend, still, pictures, Silent())

    def store() -> features.FeatureBatches:
        return features.FeatureBatches(
            experiment, backend.build_models(still).fine_tune, shared.SharedBatches(experiment)
        )

    filled = store()
    filled.compute(pictures.train)
    be(monkeypatch, 1, 2)
    empty = store()
    empty.compute(pictures.train)
    assert empty.vectors.keys() == filled.vectors.keys()
    batches = list(filled.train(1))
    assert [(len(vectors), len(labels)) for vectors, labels in batches] == [(4, 8), (4, 8), (6, 6)]
    # This process has the second half.
    order = random_streams.epoch_order(22, still.seed, 1)
    np.testing.assert_array_equal(batches[0][0], [filled.vectors[pictures.train[index]] for index in order[4:8]])
    batches = list(filled.test(pictures.train))
    assert [(len(vectors), len(labels)) for vectors, labels in batches] == [(4, 8), (4, 8), (4, 6)]


class Sharing(FakeBackend):
    """A backend of NumPy on several devices, for which every process has computed everything."""

    class Trainer(FakeBackend.Trainer):
        def train_step(self, images, labels, rate_factor=1.0) -> None:
            own = processes.share(len(labels), processes.world(), 2)
            super().train_step(images, labels[own], rate_factor)

    def logits(self, model, images) -> np.ndarray:
        return np.concatenate([super().logits(model, images)] * processes.world().size)


class Listening(Watch):
    """Counts what it is told."""

    told = 0

    def on_note(self, text: str) -> None:
        self.told += 1

    def on_progress(self, steps: int, text: str) -> None:
        self.told += 1

    def on_epoch(self, metrics, predictions) -> None:
        self.told += 1


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_writes_and_shows(monkeypatch, spec, tmp_path, rank) -> None:
    monkeypatch.setattr(backends, "load", lambda name: Sharing())
    be(monkeypatch, rank, 2)
    watch = Listening()
    changed = spec.replace(devices=2, strategy="feature-extraction")
    record = run_experiment(changed, tmp_path / "out", watch, tensorboard=True)
    assert record.final["test_accuracy"] >= 0
    if rank:
        assert not (tmp_path / "out").exists()
        assert watch.told == 0
        return
    assert watch.told > 2
    written = json.loads((tmp_path / "out" / "record.json").read_text())
    assert written["status"] == "complete"
    assert (written["resolved"]["devices"], written["resolved"]["processes"]) == (2, 2)
    assert np.load(tmp_path / "out" / "predictions.npz")["logits"].shape == (14, 2)


def test_another_process_does_not_mind_the_firsts_record(monkeypatch, spec, tmp_path) -> None:
    """The first may have begun to write before the others look."""
    monkeypatch.setattr(backends, "load", lambda name: Sharing())
    (tmp_path / "record.json").write_text("of the first")
    be(monkeypatch, 1, 2)
    run_experiment(spec.replace(devices=2), tmp_path, Silent())
    assert (tmp_path / "record.json").read_text() == "of the first"
