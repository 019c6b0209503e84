"""The pipelines as a backend sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.batches import shared
from common.contract.backend import Backend
from common.data.folder import ImageData, Sample
from common.preprocessing.transforms import Transform
from common.spec.experiment import ExperimentSpec

CAFFE_LIKE = {"channel_order": "BGR", "scale": 1.0, "mean": (103.9, 116.8, 123.7), "std": (1.0, 1.0, 1.0)}


def as_numpy(array: Any) -> np.ndarray:
    """A framework's array as NumPy."""
    return array.asnumpy() if hasattr(array, "asnumpy") else np.asarray(array)


def channels_last(images: Any, side: int) -> np.ndarray:
    """(N, H, W, 3) whatever the framework's layout."""
    images = as_numpy(images)
    return images if images.shape[1:] == (side, side, 3) else images.transpose(0, 2, 3, 1)


def transform(**changes: Any) -> Transform:
    values = {
        "image_size": 64, "resize_size": 72, "train_crop": "random_resized_crop", "test_resize": "short_side",
        "flip": True, "channel_order": "RGB", "scale": 1 / 255, "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }  # fmt: skip
    made = {**values, **changes}
    return Transform(**{**made, "resize_size": made["image_size"]} if made["test_resize"] == "letterbox" else made)


@pytest.fixture
def wholes(tmp_path) -> tuple[Sample, ...]:
    """Pictures whose long side is 64 px, the size of the square: only their borders are made."""
    generator = np.random.default_rng(4)
    samples = []
    for index, size in enumerate([(64, 40), (39, 64), (64, 64), (1, 64), (64, 63)]):
        path = tmp_path / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
        samples.append(Sample(path, index % 2, path.name))
    return tuple(samples)


@pytest.fixture
def squares(tmp_path) -> tuple[Sample, ...]:
    """Pictures of 72 x 72 px: resizing to 72 changes nothing, so every framework's resizer agrees."""
    generator = np.random.default_rng(3)
    samples = []
    for index in range(5):
        path = tmp_path / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (72, 72, 3)).astype(np.uint8)).save(path)
        samples.append(Sample(path, index % 2, path.name))
    return tuple(samples)


def test_shared_batches_keep_their_pixels(backend: Backend, spec, pictures: ImageData) -> None:
    for images, labels in shared.test_batches(spec, transform(), pictures.test):
        taken, taken_labels = backend.from_shared(images, labels)
        np.testing.assert_array_equal(channels_last(taken, 64), images)
        np.testing.assert_array_equal(as_numpy(taken_labels), labels)


@pytest.mark.parametrize("test_resize", ["short_side", "squash"])
@pytest.mark.parametrize("colours", [{}, CAFFE_LIKE], ids=["RGB", "BGR"])
def test_native_test_images_equal_the_shared_ones(backend, spec, squares, test_resize, colours) -> None:
    chosen = transform(test_resize=test_resize, **colours)
    changed = spec.replace(batch_size=2)
    native = list(backend.native_test_batches(changed, chosen, squares))
    assert [len(as_numpy(labels)) for _, labels in native] == [2, 2, 1]
    images = np.concatenate([channels_last(images, 64) for images, _ in native])
    labels = np.concatenate([as_numpy(labels) for _, labels in native])
    expected = np.concatenate([images for images, _ in shared.test_batches(changed, chosen, squares)])
    # One rounding of float32 in another order of the same operations.
    np.testing.assert_allclose(images, expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(labels, [sample.label for sample in squares])


@pytest.mark.parametrize("test_resize", ["short_side", "squash"])
def test_native_resizing_keeps_or_squashes_the_aspect(backend, spec, tmp_path, test_resize) -> None:
    """A picture twice as wide as high, its left quarter white: squashed, a piece of that stays in the crop."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, :50] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    chosen = transform(test_resize=test_resize, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ((images, _),) = backend.native_test_batches(spec, chosen, [Sample(tmp_path / "wide.png", 0, "wide.png")])
    white = channels_last(images, 64)[0, 32, :, 0] > 0.5
    # Squashed to 72 px the white quarter is 18 px, of which the crop leaves 14; kept in aspect (144 px) it is cut off.
    assert white.sum() == pytest.approx(14 if test_resize == "squash" else 0, abs=1)


@pytest.mark.parametrize("colours", [{}, CAFFE_LIKE], ids=["RGB", "BGR"])
def test_native_whole_images_equal_the_shared_ones(backend, spec, wholes, colours) -> None:
    chosen = transform(test_resize="letterbox", train_crop="none", flip=False, **colours)
    (expected,) = (images for images, _ in shared.test_batches(spec, chosen, wholes))
    ((images, _),) = backend.native_test_batches(spec, chosen, wholes)
    limit = 2e-6 * np.abs(expected).max()
    np.testing.assert_allclose(channels_last(images, 64), expected, atol=limit)
    ((trained, labels),) = backend.native_train_batches(spec, chosen, wholes, 1)
    assert sorted(as_numpy(labels).tolist()) == [0, 0, 0, 1, 1]
    shown, wanted = (sorted(batch.sum((1, 2, 3)).tolist()) for batch in (channels_last(trained, 64), expected))
    np.testing.assert_allclose(shown, wanted, rtol=1e-4, atol=1e-2)


def test_native_resizing_of_a_whole_image_keeps_the_aspect(backend, spec, tmp_path) -> None:
    """A white picture four times as wide as high, and one that is a line."""
    Image.new("RGB", (200, 50), "white").save(tmp_path / "wide.png")
    Image.new("RGB", (400, 2), "white").save(tmp_path / "line.png")
    samples = [Sample(tmp_path / name, 0, name) for name in ("wide.png", "line.png")]
    ((images, _),) = backend.native_test_batches(spec, transform(test_resize="letterbox"), samples)
    for image, rows in zip(channels_last(images, 64), (range(24, 40), range(31, 32)), strict=True):
        np.testing.assert_array_equal(np.flatnonzero((np.abs(image) > 1e-5).any((1, 2))), list(rows))


@pytest.mark.parametrize("train_crop", ["random_resized_crop", "resize_random_crop"])
def test_native_training_batches(backend: Backend, spec: ExperimentSpec, pictures, train_crop) -> None:
    chosen = transform(train_crop=train_crop)

    def epoch(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        batches = list(backend.native_train_batches(spec.replace(seed=seed), chosen, pictures.train, number))
        assert [len(as_numpy(labels)) for _, labels in batches] == [8, 8, 6]
        images = np.concatenate([channels_last(images, 64) for images, _ in batches])
        return images, np.concatenate([as_numpy(labels) for _, labels in batches])

    images, labels = epoch(1)
    assert images.dtype == np.float32
    assert images.shape == (22, 64, 64, 3)
    assert sorted(labels.tolist()) == [0] * 11 + [1] * 11
    again, again_labels = epoch(1)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, again_labels)
    for other, _ in (epoch(2), epoch(1, seed=1)):
        assert not np.array_equal(images, other)
    # The classes differ in tint, so a label that lost its picture would show.
    tint = images.mean((1, 2))[:, 0] - images.mean((1, 2))[:, 1]
    assert tint[labels == 0].min() > tint[labels == 1].max()


@pytest.mark.parametrize(("train_crop", "size"), [("resize_random_crop", 72), ("none", 72), ("none", 64)])
def test_without_random_crop_and_flip_native_training_images_are_the_test_images(
    backend, spec, squares, train_crop, size
) -> None:
    chosen = transform(train_crop=train_crop, flip=False, image_size=size)
    images = [images for images, _ in backend.native_train_batches(spec, chosen, squares, 1)]
    shown = sorted(channels_last(np.concatenate([as_numpy(i) for i in images]), size).sum((1, 2, 3)).tolist())
    expected = [images for images, _ in shared.test_batches(spec, chosen, squares)]
    np.testing.assert_allclose(shown, sorted(np.concatenate(expected).sum((1, 2, 3)).tolist()), rtol=1e-4, atol=1e-2)


def test_native_images_are_presized_like_the_shared_ones(backend: Backend, spec: ExperimentSpec, tmp_path) -> None:
    """Photographs whose short side becomes 72 px as they are decoded, so that no resize follows."""
    generator, samples = np.random.default_rng(4), []
    for index, orientation in enumerate((1, 6, 1)):
        coarse = Image.fromarray(generator.integers(0, 256, (9, 9, 3)).astype(np.uint8))
        exif, path = Image.Exif(), tmp_path / f"{index}.jpg"
        exif[0x0112] = orientation
        coarse.resize((601, 601), Image.Resampling.BICUBIC).save(path, exif=exif)
        samples.append(Sample(path, index % 2, path.name))
    chosen = transform(presized_side=72, train_crop="none", flip=False)
    (expected,) = (images for images, _ in shared.test_batches(spec, chosen, samples))
    tested = [channels_last(images, 64) for images, _ in backend.native_test_batches(spec, chosen, samples)]
    trained = [channels_last(images, 64) for images, _ in backend.native_train_batches(spec, chosen, samples, 1)]
    # One rounding of float32 in another order of the same operations; training images come in any order.
    np.testing.assert_allclose(np.concatenate(tested), expected, atol=1e-5)
    totals = [np.sort(images.sum((1, 2, 3))) for images in (np.concatenate(trained), expected)]
    np.testing.assert_allclose(*totals, rtol=1e-4, atol=1e-2)
