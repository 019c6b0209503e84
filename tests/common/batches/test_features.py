"""Features computed once: when, in which order, and with what result."""

from __future__ import annotations

import numpy as np
import pytest

from common.batches.features import FeatureBatches
from common.batches.shared import SharedBatches
from common.contract.watch import Quiet
from common.data.folder import ImageData, read_folder
from common.method import feature_reuse, phases
from common.spec.experiment import ExperimentSpec, StageMultiples
from common.system.caches import cache_folder
from tests.conftest import write_pictures
from tests.fake_backend import FakeBackend
from tests.run_experiment import make_experiment

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture
def spec() -> ExperimentSpec:
    return ExperimentSpec(
        strategy="feature-extraction", train_crop="none", flip=False, image_size=64, resize_size=72, batch_size=8,
        epochs=3, learning_rate=0.01, workers=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [True]),
        ({"reuse_features": "never"}, [False]),
        ({"flip": True}, [False]),
        ({"train_crop": "resize_random_crop"}, [False]),
        ({"pipeline": "native"}, [False]),
        ({"strategy": "fine-tune"}, [False]),
        ({"strategy": "partial", "partial_stages": 1}, [False]),
        ({"strategy": "warm-up"}, [True, False]),
        # No stage of the backbone trains, but its statistics move.
        ({"strategy": "fine-tune", "stage_multiples": StageMultiples(0, 0, 0, 0, 0)}, [False]),
        ({"strategy": "fine-tune", "stage_multiples": StageMultiples(0, 0, 0, 0, 0), "batch_norm": "frozen"}, [True]),
    ],
)
def test_features_are_reused_where_nothing_would_change_them(spec, changes, expected) -> None:
    changed = spec.replace(**changes)
    assert [feature_reuse.reused(changed, phase) for phase in phases.phases(changed)] == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "once"),
        ({"flip": True}, "--no-flip"),
        ({"reuse_features": "never"}, "never"),
        ({"pipeline": "native"}, "native"),
        ({"strategy": "fine-tune"}, None),
    ],
)
def test_the_choice_is_said_with_its_reason(spec, changes, words) -> None:
    changed = spec.replace(**changes)
    (phase,) = phases.phases(changed)
    said = feature_reuse.describe(changed, phase)
    assert said is None if words is None else words in str(said)


def test_the_store_keeps_the_pipelines_batches(spec: ExperimentSpec, pictures: ImageData) -> None:
    backend = FakeBackend()
    experiment = make_experiment(backend, spec, pictures)
    images = SharedBatches(experiment)
    store = FeatureBatches(experiment, backend.build_models(spec).fine_tune, images)
    pairs = [
        *((store.train(epoch), images.train(epoch)) for epoch in (1, 2)),
        (store.test(pictures.test), images.test(pictures.test)),
    ]
    for found, expected in pairs:
        for (vectors, labels), (images, expected_labels) in zip(found, expected, strict=True):
            assert vectors.dtype == np.float32
            np.testing.assert_allclose(vectors, images.mean(axis=(1, 2)), rtol=1e-6)
            np.testing.assert_array_equal(labels, expected_labels)


def count_computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Will hold the number of images of every batch whose features are computed."""
    counted: list[int] = []
    make = FakeBackend.feature_extractor

    def counting(self, model):
        extract = make(self, model)
        return lambda images: counted.append(len(images)) or extract(images)

    monkeypatch.setattr(FakeBackend, "feature_extractor", counting)
    return counted


@pytest.mark.parametrize("strategy", ["feature-extraction", "warm-up"])
def test_each_image_is_computed_once_and_the_numbers_stay(spec, pictures, monkeypatch, strategy) -> None:
    counted = count_computed(monkeypatch)
    histories, models = [], []
    for reuse in ("auto", "never"):
        backend = FakeBackend()
        models.append(backend.build_models(spec).fine_tune)
        changed = spec.replace(strategy=strategy, reuse_features=reuse)
        histories.append(backend.train_fine_tuning(models[-1], changed, pictures, watch=Quiet()))
    assert sum(counted) == 22 + 14
    for one, other in zip(*(history.epochs for history in histories), strict=True):
        assert (one.loss, one.test_loss) == pytest.approx((other.loss, other.test_loss), rel=1e-6)
        assert (one.train_accuracy, one.test_accuracy) == (other.train_accuracy, other.test_accuracy)
    for name, array in models[0].arrays.items():
        np.testing.assert_allclose(array, models[1].arrays[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_progress_counts_to_what_was_announced(spec, pictures) -> None:
    class Counting(Quiet):
        announced = done = 0

        def on_start(self, steps: int) -> None:
            self.announced = steps

        def on_progress(self, steps: int, text: str) -> None:
            self.done += steps

    for strategy in ("feature-extraction", "warm-up", "fine-tune"):
        watch, backend = Counting(), FakeBackend()
        backend.train_fine_tuning(
            backend.build_models(spec).fine_tune, spec.replace(strategy=strategy), pictures, watch=watch
        )
        assert watch.done == watch.announced


def test_a_later_run_reads_them_and_gives_the_same_digits(spec, pictures, monkeypatch) -> None:
    counted = count_computed(monkeypatch)
    histories = []
    for _ in range(2):
        backend = FakeBackend()
        histories.append(backend.train_fine_tuning(backend.build_models(spec).fine_tune, spec, pictures, watch=Quiet()))
    assert sum(counted) == 22 + 14
    assert [history.features for history in histories] == [
        {"computed": 36, "read": 0}, {"computed": 0, "read": 36},
    ]  # fmt: skip
    np.testing.assert_array_equal(histories[0].test.logits, histories[1].test.logits)
    # Another rate trains on the same features, another network has others.
    backend = FakeBackend()
    model = backend.build_models(spec).fine_tune
    backend.train_fine_tuning(model, spec.replace(learning_rate=0.02), pictures, watch=Quiet())
    assert sum(counted) == 36
    backend.load_arrays(model, {"conv1.weight": backend.to_arrays(model)["conv1.weight"] + 1})
    backend.train_fine_tuning(model, spec, pictures, watch=Quiet())
    assert sum(counted) == 72


@pytest.mark.parametrize(
    "changes",
    [
        {"resize_size": 80},
        {"presize": 1.0},
        {"batch_size": 4},
        {"test_resize": "squash"},
        {"image_cache": False},
        {"device": "cpu"},
    ],
)
def test_what_they_depend_on_makes_them_anew(spec, pictures, monkeypatch, changes) -> None:
    counted = count_computed(monkeypatch)
    for chosen in (spec, spec.replace(**changes)):
        backend = FakeBackend()
        backend.train_fine_tuning(backend.build_models(spec).fine_tune, chosen, pictures, watch=Quiet())
    assert sum(counted) == 72


def test_changed_images_and_damaged_files_are_computed_anew(spec, tmp_path, monkeypatch) -> None:
    root = write_pictures(tmp_path / "pictures", ["a", "b"], train=4, test=2)
    data = read_folder(root, progress=False)
    counted = count_computed(monkeypatch)

    def run() -> None:
        backend = FakeBackend()
        backend.train_fine_tuning(backend.build_models(spec).fine_tune, spec, data, watch=Quiet())

    run()
    data.test[0].path.write_bytes(data.test[1].path.read_bytes())
    # What is computed of an image that has changed since the data were read is no later run's.
    run()
    assert sum(counted) == 12
    data = read_folder(root, progress=False)
    run()
    assert sum(counted) == 12 + 4
    files = list((cache_folder() / "features").glob("*/features.npy"))
    assert len(files) == 3
    for file, content in zip(files, (b"", b"no array", files[2].read_bytes()[:-4]), strict=True):
        file.write_bytes(content)
    run()
    assert sum(counted) == 12 + 4 + 12
