"""From spec to record, driven through a backend of NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import backends
from common.batches import shared
from common.batches.shared import SharedBatches
from common.contract.results import Predictions
from common.contract.watch import Quiet, Watch
from common.data.folder import ImageData
from common.devices import driver, precision
from common.network import weights
from common.preprocessing import transforms
from common.runs import description, record, schema
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError, UserError
from common.training import loop
from tests.conftest import write_pictures
from tests.fake_backend import FakeBackend
from tests.run_experiment import run_experiment

SCHEMA = json.loads(schema.SCHEMA.read_text())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    backend = FakeBackend()
    monkeypatch.setattr(backends, "load", lambda name: backend)
    return backend


@pytest.fixture
def spec(pictures: ImageData) -> ExperimentSpec:
    return ExperimentSpec(data=str(pictures.root), image_size=64, batch_size=8, epochs=3, learning_rate=0.01, workers=0)


def read_checked(folder: Path) -> record.RunRecord:
    """The record, after its file was held against the schema."""
    jsonschema.validate(json.loads((folder / "record.json").read_text()), SCHEMA)
    return record.read_record(folder)


def test_the_schema_is_that_of_the_types() -> None:
    assert schema.SCHEMA.read_text() == schema.schema_text(), "make it anew: python -m common.runs.schema"


def test_a_run_leaves_record_predictions_and_model(fake, spec, tmp_path) -> None:
    returned = run_experiment(spec, tmp_path / "out", Quiet(), command=["python", "-m", "scripts.run"])
    read = read_checked(tmp_path / "out")
    assert read.to_json() == returned.to_json()
    assert read.status == "complete"
    assert read.spec == spec
    assert [metrics.epoch for metrics in read.epochs] == [1, 2, 3]
    assert read.data["class_to_idx"] == {"hotdog": 0, "not-hotdog": 1}
    assert (read.data["train_images"], read.data["test_images"], read.data["skipped_images"]) == (22, 14, 0)
    assert read.model["hotdog_index"] == 934
    assert read.model["parameters"] == sum(read.model["parameters_by_stage"].values()) == 11_177_538
    assert read.resolved["mean_learning_rate"] == pytest.approx(0.08)
    assert read.environment["versions"]["fake"] == "1.0"
    assert read.timing["images_per_second"] > 0

    stored = np.load(tmp_path / "out" / "predictions.npz")
    assert stored["logits"].shape == (14, 2)
    assert stored["labels"].tolist() == [0] * 7 + [1] * 7
    assert stored["names"][0] == "test/hotdog/000.png"
    assert stored["classes"].tolist() == ["hotdog", "not-hotdog"]
    accuracy = (stored["logits"].argmax(1) == stored["labels"]).mean()
    assert read.epochs[-1].test_accuracy == pytest.approx(accuracy)

    header = weights.read_header(tmp_path / "out" / "model.safetensors")
    assert header.class_names == ("hotdog", "not-hotdog")
    assert header.preprocessing.image_size == 64


def test_the_record_says_what_auto_came_to_and_where_the_pixels_were(fake, spec, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(["amx_bf16"]))
    returned = run_experiment(spec.replace(precision="auto"), tmp_path / "out", Quiet())
    read = read_checked(tmp_path / "out")
    assert read.to_json() == returned.to_json()
    # As asked, so that the same command finds its own record again.
    assert read.spec.precision == "auto"
    assert (read.resolved["precision"], read.resolved["precision_reason"]) == ("bf16", "the processor has AMX")
    assert read.resolved["decoded_images"]["kept"]
    without = run_experiment(spec.replace(image_cache=False), tmp_path / "without", Quiet())
    assert read_checked(tmp_path / "without").resolved["decoded_images"]["reason"] == "image_cache is off"
    assert [epoch.loss for epoch in without.epochs] == [epoch.loss for epoch in returned.epochs]


def test_a_presized_run_says_to_what_side_and_needs_no_cache(fake, spec, tmp_path) -> None:
    """The pixels are the same whether kept or not, and other ones than those of whole images."""
    data = str(write_pictures(tmp_path / "large", ["a", "b"], train=4, test=4, size=(400, 300)))
    runs, changed = [], spec.replace(data=data, presize=1.5, resize_size=70)
    for name, chosen in (
        ("kept", changed),
        ("not-kept", changed.replace(image_cache=False)),
        ("resident", changed.replace(pipeline="resident")),
        ("whole", spec.replace(data=data, resize_size=70)),
    ):
        run_experiment(chosen, tmp_path / name, Quiet())
        runs.append(read_checked(tmp_path / name))
    assert [run.spec.presize for run in runs] == [1.5, 1.5, 1.5, None]
    assert [run.resolved["presized_side"] for run in runs] == [105, 105, 105, None]
    assert runs[0].resolved["decoded_images"]["bytes"] == 16 * 140 * 105 * 3
    kept, *others, whole = ([(epoch.loss, epoch.test_loss) for epoch in run.epochs] for run in runs)
    assert others == [kept, kept]
    assert whole != kept
    assert set(record.differences([runs[0], runs[3]])) == {"presize"}


def test_accuracy_and_loss_count_every_image_once(fake, spec, pictures) -> None:
    """With a learning rate of 0 the training metrics must be those of all 22 images together."""
    model = fake.build_models(spec).fine_tune
    history = fake.train_fine_tuning(model, spec.replace(learning_rate=0.0), pictures, watch=Quiet())
    transform = transforms.transform_for(spec)
    images, labels = zip(*shared.train_batches(spec, transform, pictures.train, 1), strict=True)
    predictions = Predictions(fake.logits(model, np.concatenate(images)), np.concatenate(labels))
    assert history.epochs[0].loss == pytest.approx(predictions.loss)
    assert history.epochs[0].train_accuracy == pytest.approx(predictions.accuracy)


@pytest.mark.parametrize("pipeline_name", ["shared", "native"])
def test_dropped_last_batches_do_not_count(fake, spec, tmp_path, monkeypatch, pipeline_name) -> None:
    """Of 22 training and 14 test images 16 and 8 are in full batches of 8; the record and the predictions say so."""
    for name in ("train", "test"):
        batches = getattr(shared, f"{name}_batches")
        monkeypatch.setattr(fake, f"native_{name}_batches", batches, raising=False)
    changed = spec.replace(last_batch="drop", pipeline=pipeline_name, learning_rate=0.0)
    run_experiment(changed, tmp_path, Quiet())
    read = read_checked(tmp_path)
    assert (read.data["trained_images"], read.data["tested_images"]) == (16, 8)
    assert (read.data["train_images"], read.data["test_images"]) == (22, 14)
    stored = np.load(tmp_path / "predictions.npz")
    assert stored["labels"].tolist() == [0] * 7 + [1]
    assert stored["names"].tolist() == [
        *(f"test/hotdog/{index:03d}.png" for index in range(7)),
        "test/not-hotdog/000.png",
    ]
    metrics = read.epochs[0]
    assert metrics.test_accuracy == pytest.approx((stored["logits"].argmax(1) == stored["labels"]).mean())
    assert (metrics.train_accuracy * 16).is_integer()
    assert metrics.images_per_second == pytest.approx(16 / metrics.seconds)
    assert read.timing["images_per_second"] == pytest.approx(16 * 3 / read.timing["training_seconds"])


def test_every_image_counts_unless_told(fake, spec, tmp_path) -> None:
    run_experiment(spec, tmp_path, Quiet())
    data = read_checked(tmp_path).data
    assert (data["trained_images"], data["tested_images"]) == (22, 14)


def test_dropping_the_only_batch_is_refused(fake, spec, tmp_path) -> None:
    with pytest.raises(UserError, match="all 14 test images.*--batch-size"):
        run_experiment(spec.replace(last_batch="drop", batch_size=16), tmp_path, Quiet())


def test_the_hot_dog_row_can_be_named(fake, spec, tmp_path) -> None:
    run_experiment(spec.replace(hotdog_index=713), tmp_path, Quiet())
    assert read_checked(tmp_path).model["hotdog_index"] == 713
    findings = description.inspect(spec.replace(hotdog_index=713), fake, fake.build_models(spec))
    assert (findings["hotdog"]["index"], findings["hotdog"]["name"]) == (713, "photocopier")
    with pytest.raises(UserError, match="rows 0 to 999"):
        run_experiment(spec.replace(hotdog_index=1000), tmp_path / "other", Quiet())


def test_divergence_keeps_the_record_so_far(fake, spec, tmp_path, monkeypatch) -> None:
    class DivergesLate(fake.Trainer):
        steps = 0

        def read_sums(self):
            DivergesLate.steps += 1
            loss, correct = super().read_sums()
            return (float("nan") if DivergesLate.steps > 1 else loss), correct

    monkeypatch.setattr(FakeBackend, "Trainer", DivergesLate)
    with pytest.raises(loop.Diverged, match="epoch 2.*--learning-rate"):
        run_experiment(spec, tmp_path, Quiet())
    read = read_checked(tmp_path)
    assert read.status == "diverged"
    assert len(read.epochs) == 1
    assert "diverged" in str(read.error)
    assert not (tmp_path / "model.safetensors").exists()


class Notes(Watch):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(("found", "lines"), [("nvidia-smi", 1), (None, 0)])
def test_a_gpu_that_is_not_used_is_said_once(fake, spec, tmp_path, monkeypatch, found, lines) -> None:
    monkeypatch.setattr(driver, "find_driver", lambda: found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    notes = Notes()
    run_experiment(spec.replace(epochs=0), tmp_path, notes)
    assert sum("sees no GPU" in text for text in notes.said) == lines


class Stops(Watch):
    """Ends a run after its first epoch as an error would."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_epoch(self, metrics, predictions) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (RuntimeError("out of memory"), "failed")]
)
def test_what_ends_a_run_is_recorded(fake, spec, tmp_path, error, status) -> None:
    with pytest.raises(type(error)):
        run_experiment(spec, tmp_path, Stops(error))
    read = read_checked(tmp_path)
    assert read.status == status
    assert len(read.epochs) == 1
    assert type(error).__name__ in str(read.error)
    assert read.finished is not None


def test_bad_input_leaves_an_old_record_alone(fake, spec, tmp_path) -> None:
    run_experiment(spec, tmp_path, Quiet())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for changes in ({"data": "nowhere"}, {"weights": "nowhere"}, {"train_limit": 2, "test_limit": 2}):
        overwrite = "data" in changes or "weights" in changes
        with pytest.raises(UserError):
            run_experiment(spec.replace(**changes), tmp_path, Quiet(), overwrite=overwrite)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_overwriting_removes_what_would_not_belong(fake, spec, tmp_path) -> None:
    run_experiment(spec, tmp_path, Quiet())
    with pytest.raises(KeyboardInterrupt):
        run_experiment(spec, tmp_path, Stops(KeyboardInterrupt()), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["record.json"]


def test_an_output_that_cannot_be_written_is_refused(fake, spec, tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="--output"):
        run_experiment(spec, tmp_path / "file", Quiet())
    assert (tmp_path / "file").read_text() == "mine"


def test_names_outside_utf8_do_not_lose_the_model(fake, spec, tmp_path) -> None:
    import os
    import shutil

    root = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")
    shutil.copytree(spec.data, root)
    run_experiment(spec.replace(data=root), tmp_path / "out", Quiet())
    assert read_checked(tmp_path / "out").status == "complete"
    assert "bad" in weights.read_header(tmp_path / "out" / "model.safetensors").source


@pytest.mark.parametrize("batch_size", [1, 7, 21])
def test_one_image_of_one_last_pixel_is_refused(fake, spec, tmp_path, batch_size) -> None:
    small = spec.replace(image_size=32, batch_size=batch_size)
    with pytest.raises(UserError, match="--batch-size"):
        run_experiment(small, tmp_path / "out", Quiet())
    assert not (tmp_path / "out").exists()
    run_experiment(small.replace(batch_norm="frozen"), tmp_path / "frozen", Quiet())


def test_a_pipeline_that_loses_images_is_noticed(fake, spec, pictures, monkeypatch) -> None:
    whole = SharedBatches.train
    monkeypatch.setattr(SharedBatches, "train", lambda *arguments: list(whole(*arguments))[:-1])
    with pytest.raises(RunError, match="16 of 22"):
        fake.train_fine_tuning(fake.build_models(spec).fine_tune, spec, pictures, watch=Quiet())


def test_a_pipeline_that_changes_the_test_order_is_noticed(fake, spec, pictures, monkeypatch) -> None:
    whole = SharedBatches.test
    monkeypatch.setattr(SharedBatches, "test", lambda *arguments: list(whole(*arguments))[::-1])
    with pytest.raises(RunError, match="out of order"):
        fake.train_fine_tuning(fake.build_models(spec).fine_tune, spec, pictures, watch=Quiet())


def test_fewer_than_five_batches_are_no_problem(fake, spec, pictures, capsys) -> None:
    fake.train_fine_tuning(fake.build_models(spec).fine_tune, spec.replace(batch_size=128, epochs=1), pictures)
    assert capsys.readouterr().out.startswith("epoch 1, loss ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a run record"),
        ("[1]", "schema_version"),
        ('{"schema_version": 99}', "99"),
        ('{"schema_version": 1}', "damaged"),
        ('{"schema_version": 1, "spec": {"epochs": "x"}, "epochs": []}', "damaged"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, content, message) -> None:
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(UserError, match=message):
        record.read_record(tmp_path)


def test_a_missing_record_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="no such record"):
        record.read_record(tmp_path / "nowhere.json")


def test_what_is_left_to_the_weights_is_no_difference_to_the_same_by_name(spec) -> None:
    """Also with records from before a default was the weights' own."""
    used = {"image_size": 64, "resize_size": 73, "test_resize": "short_side"}
    left = record.RunRecord(spec, resolved=used)
    named = record.RunRecord(spec.replace(test_resize="short_side", resize_size=73), resolved=used)
    assert record.differences([left, named]) == {}
    other = record.RunRecord(spec, resolved={**used, "test_resize": "squash"})
    assert record.differences([left, other]) == {"test_resize": ["short_side", "squash"]}
