"""Features computed once: when, in which order, and with what result."""

from __future__ import annotations

import numpy as np
import pytest

from common import features, fit, groups, pipeline
from common.features import FeatureStore
from common.fit import Watch
from common.folder import ImageData
from common.spec import ExperimentSpec, StageMultiples
from tests.fake_backend import FakeBackend


class Quiet(Watch):
    def on_epoch(self, metrics, predictions) -> None:
        pass


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
    assert [features.reused(changed, phase) for phase in groups.phases(changed)] == expected


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
    (phase,) = groups.phases(changed)
    said = features.describe(changed, phase)
    assert said is None if words is None else words in str(said)


def test_the_store_keeps_the_pipelines_batches(spec: ExperimentSpec, pictures: ImageData) -> None:
    backend = FakeBackend()
    store = FeatureStore(backend, backend.build_models(spec).fine_tune, Quiet(), pipeline.FILES)
    transform = pipeline.transform_for(spec)
    pairs = [
        *(
            (store.train_batches(spec, transform, pictures.train, epoch),
             pipeline.train_batches(spec, transform, pictures.train, epoch))
            for epoch in (1, 2)
        ),
        (store.test_batches(spec, transform, pictures.test), pipeline.test_batches(spec, transform, pictures.test)),
    ]  # fmt: skip
    for found, expected in pairs:
        for (vectors, labels), (images, expected_labels) in zip(found, expected, strict=True):
            assert vectors.dtype == np.float32
            np.testing.assert_allclose(vectors, images.mean(axis=(1, 2)), rtol=1e-6)
            np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("strategy", ["feature-extraction", "warm-up"])
def test_each_image_is_computed_once_and_the_numbers_stay(spec, pictures, monkeypatch, strategy) -> None:
    counted = []
    compute = FakeBackend.features
    monkeypatch.setattr(
        FakeBackend, "features", lambda self, model, images: counted.append(len(images)) or compute(self, model, images)
    )
    histories, models = [], []
    for reuse in ("auto", "never"):
        backend = FakeBackend()
        models.append(backend.build_models(spec).fine_tune)
        changed = spec.replace(strategy=strategy, reuse_features=reuse)
        histories.append(fit.fit(backend, models[-1], changed, pictures, watch=Quiet()))
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
        fit.fit(backend, backend.build_models(spec).fine_tune, spec.replace(strategy=strategy), pictures, watch=watch)
        assert watch.done == watch.announced
