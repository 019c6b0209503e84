"""Images that stay on the device, as a backend makes batches of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.batches.resident import ResidentBatches
from common.batches.shared import SharedBatches
from common.contract.backend import Backend
from common.contract.watch import Quiet
from common.data.folder import ImageData
from common.spec.experiment import ExperimentSpec
from tests.backends.conftest import largest_difference
from tests.backends.test_inputs import CAFFE_LIKE, as_numpy, transform
from tests.run_experiment import make_experiment

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]


def from_device(array: Any) -> np.ndarray:
    """A framework's array as NumPy, from a GPU too."""
    return as_numpy(array.cpu() if hasattr(array, "cpu") else array)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("train_crop", "test_resize", "colours"),
    [
        ("random_resized_crop", "short_side", {}),
        ("resize_random_crop", "squash", CAFFE_LIKE),
        ("none", "short_side", CAFFE_LIKE),
        ("none", "letterbox", CAFFE_LIKE),
        ("random_resized_crop", "letterbox", {}),
    ],
)
def test_batches_are_the_shared_pipelines(
    backend: Backend, spec: ExperimentSpec, odd_sizes: ImageData, train_crop, test_resize, colours, device
) -> None:
    chosen = transform(train_crop=train_crop, test_resize=test_resize, **colours)
    changed = spec.replace(pipeline="resident", batch_size=4, device=device)
    backend.prepare(changed)
    experiment = make_experiment(backend, changed, odd_sizes, transform=chosen)
    source, usual = ResidentBatches(experiment), SharedBatches(experiment)
    pairs = [(source.train(1), usual.train(1)), (source.test(odd_sizes.test), usual.test(odd_sizes.test))]
    for found, wanted in pairs:
        for (made, made_labels), (expected, expected_labels) in zip(found, wanted, strict=True):
            made, expected = from_device(made), as_numpy(expected)
            assert (made.dtype, made.shape) == (expected.dtype, expected.shape)
            # Pixels are the same; a compiler may join or reorder the steps of the normalisation. One level of 255
            # would be 0.004 of the largest value.
            np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
            np.testing.assert_array_equal(from_device(made_labels), as_numpy(expected_labels))


@pytest.mark.gpu
def test_pixels_are_exact_in_tf32_too(backend, backend_name, spec, odd_sizes) -> None:
    if backend_name == "mxnet":
        pytest.skip("MXNet trains in float32 only")
    made = {}
    for name in ("fp32", "tf32"):
        changed = spec.replace(pipeline="resident", batch_size=4, device="gpu", precision=name)
        if (backend.prepare(changed).compute_capability or (0, 0)) < (8, 0):
            pytest.skip("needs an Ampere or later")
        source = ResidentBatches(make_experiment(backend, changed, odd_sizes))
        made[name] = [from_device(images) for images, _ in source.train(1)]
    for one, other in zip(made["tf32"], made["fp32"], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("strategy", ["fine-tune", "feature-extraction"])
def test_training_gives_the_numbers_of_the_shared_pipeline(backend, spec, pictures, strategy, device) -> None:
    changes = {"train_crop": "none", "flip": False} if strategy == "feature-extraction" else {}
    histories = []
    for name in ("resident", "shared"):
        changed = spec.replace(pipeline=name, strategy=strategy, epochs=1, device=device, **changes)
        backend.prepare(changed)
        model = backend.build_models(changed).fine_tune
        histories.append(backend.train_fine_tuning(model, changed, pictures, watch=Quiet()))
    one, other = histories
    # Two roundings of a normalised pixel, through a forward pass and three steps.
    assert one.epochs[0].loss == pytest.approx(other.epochs[0].loss, rel=1e-5)
    assert largest_difference(one.test.logits, other.test.logits) < 1e-4
