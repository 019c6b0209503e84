"""The shared input pipeline."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from common.batches import shared
from common.batches.prefetch import prefetch
from common.batches.shared import SharedBatches
from common.data.folder import ImageData, Sample, read_file
from common.data.images import open_rgb
from common.preprocessing import crops, random_streams, transforms
from common.preprocessing.transforms import Transform
from common.spec.experiment import ExperimentSpec
from tests.fake_backend import FakeBackend
from tests.run_experiment import make_experiment

PLAIN = Transform(64, 72, "random_resized_crop", "short_side", True, "RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def epoch(spec: ExperimentSpec, data: ImageData, number: int = 1) -> tuple[np.ndarray, np.ndarray, list[int]]:
    batches = list(shared.train_batches(spec, transforms.transform_for(spec), data.train, number))
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels, [len(part) for _, part in batches]


@pytest.fixture
def spec() -> ExperimentSpec:
    return ExperimentSpec(image_size=64, resize_size=72, batch_size=8, workers=0)


def test_workers_change_nothing(spec: ExperimentSpec, pictures: ImageData) -> None:
    expected = epoch(spec, pictures)
    for workers in (1, 5):
        images, labels, sizes = epoch(spec.replace(workers=workers), pictures)
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(labels, expected[1])
        assert sizes == [8, 8, 6]


def test_a_sample_is_drawn_alike_wherever_it_stands(spec: ExperimentSpec, pictures: ImageData) -> None:
    """The batch size moves samples to other batches; their pixels stay."""
    images, _, _ = epoch(spec, pictures)
    other, _, sizes = epoch(spec.replace(batch_size=5), pictures)
    assert sizes == [5, 5, 5, 5, 2]
    np.testing.assert_array_equal(images, other)


def test_epochs_and_seeds_differ(spec: ExperimentSpec, pictures: ImageData) -> None:
    first = epoch(spec, pictures)[0]
    assert not np.array_equal(first, epoch(spec, pictures, 2)[0])
    assert not np.array_equal(first, epoch(spec.replace(seed=1), pictures)[0])


def test_each_sample_comes_once(spec: ExperimentSpec) -> None:
    assert sorted(random_streams.epoch_order(1000, 0, 3)) == list(range(1000))
    assert not np.array_equal(random_streams.epoch_order(1000, 0, 3), random_streams.epoch_order(1000, 0, 4))


def test_test_batches_keep_order_and_the_last_one(spec: ExperimentSpec, pictures: ImageData) -> None:
    batches = list(shared.test_batches(spec, transforms.transform_for(spec), pictures.test))
    assert [len(labels) for _, labels in batches] == [8, 6]
    assert np.concatenate([labels for _, labels in batches]).tolist() == [0] * 7 + [1] * 7


def test_test_images_are_kept_cropped_from_the_second_time_on(
    spec: ExperimentSpec, pictures: ImageData, monkeypatch
) -> None:
    asked = []

    def read(sample: Sample, short_side: int | None = None) -> Image.Image:
        asked.append(sample)
        return read_file(sample, short_side)

    def images(source: SharedBatches) -> np.ndarray:
        return np.concatenate([images for images, _ in source.test(pictures.test)])

    experiment = make_experiment(FakeBackend(), spec, dataclasses.replace(pictures, read=read))
    source = SharedBatches(experiment)
    first = images(source)
    # What is looked at once only, such as an image whose features are computed, is not kept.
    assert not source.crops
    for _ in range(3):
        np.testing.assert_array_equal(images(source), first)
    assert sorted(sample.name for sample in asked) == sorted(2 * [sample.name for sample in pictures.test])
    # Without room every pass reads them anew.
    monkeypatch.setattr(shared, "KEPT_BYTES", 0)
    asked.clear()
    poor = SharedBatches(experiment)
    np.testing.assert_array_equal(np.stack([images(poor), images(poor)]), [first, first])
    assert len(asked) == 2 * len(pictures.test)


def test_normalisation_is_what_the_weights_say() -> None:
    image = Image.new("RGB", (4, 4), (255, 128, 0))
    rgb = transforms.transform_for(ExperimentSpec())
    expected = (np.array([1, 128 / 255, 0]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(transforms.normalise(image, rgb)[2, 1], expected, rtol=1e-6)
    caffe = transforms.transform_for(ExperimentSpec(backend="keras", model="resnet50", weights="imagenet"))
    np.testing.assert_allclose(
        transforms.normalise(image, caffe)[2, 1], [0 - 103.939, 128 - 116.779, 255 - 123.68], rtol=1e-6
    )


@pytest.mark.parametrize(("size", "resized"), [((200, 100), (144, 72)), ((90, 90), (72, 72)), ((72, 301), (72, 301))])
def test_short_side_keeps_the_aspect(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert crops.resize_for_test(Image.new("RGB", size), PLAIN).size == resized


@pytest.mark.parametrize("flip", [False, True])
def test_without_a_crop_training_images_are_the_test_images(pictures: ImageData, flip: bool) -> None:
    from dataclasses import replace

    transform, image = replace(PLAIN, train_crop="none", flip=flip), Image.open(pictures.train[0].path)
    expected = crops.test_image(image, transform)
    mirrored = 0
    for epoch in range(8):
        found = crops.train_image(image, transform, 0, epoch, 0)
        mirrored += not np.array_equal(found, expected)
        assert np.array_equal(found, expected) or (flip and np.array_equal(found, expected[:, ::-1]))
    assert (mirrored > 0) == flip


def test_centre_crop_is_at_the_centre() -> None:
    pixels = np.zeros((72, 72, 3), np.uint8)
    pixels[4, 4] = pixels[67, 67] = 200
    image = crops.test_image(Image.fromarray(pixels), PLAIN)
    assert image.shape == (64, 64, 3)
    assert image[0, 0, 0] == image[63, 63, 0] == 200


def test_sizes_follow_the_weights_in_proportion() -> None:
    assert (
        transforms.transform_for(ExperimentSpec()).image_size,
        transforms.transform_for(ExperimentSpec()).resize_size,
    ) == (128, 146)
    half = transforms.transform_for(ExperimentSpec(image_size=64))
    assert (half.image_size, half.resize_size) == (64, 73)


def test_random_crops_fit_and_follow_the_distribution() -> None:
    generator = np.random.default_rng(0)
    areas, ratios = [], []
    for _ in range(2000):
        left, top, right, bottom = crops.random_crop_box(200, 150, generator.random(40))
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 150
        areas.append((right - left) * (bottom - top) / 30_000)
        ratios.append((right - left) / (bottom - top))
    assert 0.07 < min(areas) < 0.09
    assert max(areas) > 0.9
    # torchvision's own draws give 0.433 and 0.030 for this picture: large crops, and upright ones, fit less often.
    assert np.mean(areas) == pytest.approx(0.433, abs=0.015)
    assert 0.74 < min(ratios) < 0.77
    assert 1.30 < max(ratios) < 1.36
    assert np.mean(np.log(ratios)) == pytest.approx(0.030, abs=0.015)


@pytest.mark.parametrize("size", [(1000, 3), (3, 1000), (1, 1)])
def test_extreme_pictures_are_cropped_too(size: tuple[int, int]) -> None:
    image = crops.train_image(Image.new("RGB", size, "red"), PLAIN, 0, 1, 0)
    assert image.shape == (64, 64, 3)
    np.testing.assert_array_equal(image[..., 0], 255)


def test_half_of_the_images_are_mirrored() -> None:
    pixels = np.zeros((72, 72, 3), np.uint8)
    pixels[:, 36:] = 255
    transform = Transform(
        72, 72, "resize_random_crop", "squash", True, *(PLAIN.channel_order, 1.0, PLAIN.mean, PLAIN.std)
    )
    image = Image.fromarray(pixels)
    mirrored = [crops.train_image(image, transform, 0, 1, sample)[0, 0, 0] > 0 for sample in range(400)]
    assert 160 < sum(mirrored) < 240
    still = Transform(72, 72, "resize_random_crop", "squash", False, *(PLAIN.channel_order, 1.0, PLAIN.mean, PLAIN.std))
    np.testing.assert_array_equal(crops.train_image(image, still, 0, 1, 0), pixels)


@pytest.mark.parametrize("train_crop", ["random_resized_crop", "resize_random_crop", "none"])
def test_a_presized_photograph_gives_the_same_parts(tmp_path, train_crop) -> None:
    """Up to the rounding of a cut to whole pixels, which moves its edges by less than one of 144."""
    y, x = np.mgrid[0:900, 0:1200]
    pixels = np.stack([x * 255 // 1200, y * 255 // 900, np.zeros_like(x)], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    transform = dataclasses.replace(PLAIN, train_crop=train_crop)
    whole, presized = (open_rgb(tmp_path / "a.jpg", side) for side in (None, 144))
    assert presized.size == (192, 144)
    for sample in range(40):
        one, other = (crops.train_image(image, transform, 0, 1, sample) for image in (whole, presized))
        assert np.abs(one - other).max() < 5


def test_sizes_of_presized_images_follow_the_resize() -> None:
    sides = [
        transforms.transform_for(ExperimentSpec(presize=factor, image_size=64)).presized_side
        for factor in (None, 1.0, 2.0, 2)
    ]
    assert sides == [None, 73, 146, 146]


def test_an_error_in_a_worker_arrives(spec: ExperimentSpec) -> None:
    def fail(item: int) -> int:
        if item == 3:
            raise ValueError("third")
        return item

    with pytest.raises(ValueError, match="third"):
        list(prefetch(fail, range(10), workers=2, look_ahead=4))
    assert list(prefetch(str, range(5), workers=2, look_ahead=1)) == list("01234")
