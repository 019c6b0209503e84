"""The shared input pipeline: Pillow and NumPy, the same pixels for every framework.

Every random draw is keyed by (seed, epoch, sample), so that neither the order nor the number of workers changes it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common import parallel, weights
from common.folder import Read, Sample, read_file
from common.spec import ExperimentSpec

if TYPE_CHECKING:
    from backends.contract import Backend

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Item = TypeVar("Item")
Result = TypeVar("Result")

# RandomResizedCrop's range of area and of aspect ratio (Szegedy et al. 2015; torchvision's defaults).
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
_CROP_TRIES = 10
# What the cropped test images of a run may take of its main memory, in bytes.
KEPT_BYTES = 2**30
# Streams of random numbers: one a purpose.
_ORDER, _AUGMENTATION = 3, 4


@dataclass(frozen=True)
class Transform:
    """The resolved numbers of an experiment's preprocessing; both pipelines work from these."""

    image_size: int
    resize_size: int
    train_crop: Literal["random_resized_crop", "resize_random_crop", "none"]
    test_resize: Literal["short_side", "squash"]
    flip: bool
    channel_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def transform_for(spec: ExperimentSpec) -> Transform:
    """The transform of an experiment: what the spec says, and what belongs to the weights where it says nothing."""
    own = weights.preprocessing_of(spec)
    image_size = spec.image_size or own.image_size
    resize_size = spec.resize_size or round(own.resize_size * image_size / own.image_size)
    return Transform(
        image_size, max(resize_size, image_size), spec.train_crop, spec.test_resize, spec.flip, own.channel_order,
        own.scale, own.mean, own.std,
    )  # fmt: skip


def preprocessing(transform: Transform) -> weights.Preprocessing:
    """What a checkpoint trained with `transform` records as its preprocessing."""
    return weights.Preprocessing(
        transform.image_size, transform.resize_size, "bilinear", transform.channel_order, transform.scale,
        transform.mean, transform.std,
    )  # fmt: skip


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the training samples in an epoch: a permutation of range(count)."""
    return np.argsort(_generator(seed, _ORDER, epoch).random(count), kind="stable").astype(np.int64)


def train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int, read: Read = read_file
) -> Iterator[tuple[Images, Labels]]:
    """Shuffled, augmented batches: float32 images (N, H, W, 3) and int64 labels (N,); the last may be smaller.

    Where several processes share a batch, the images are this one's (`common.parallel.share_to_train`).
    """

    def load(index: int, out: Images) -> None:
        image = augment(read(samples[index]), transform, spec.seed, epoch, index)
        normalise(image, transform, out)

    order = epoch_order(len(samples), spec.seed, epoch)
    return _batches(load, samples, [int(index) for index in order], spec, transform, parallel.share_to_train)


def test_batches(
    spec: ExperimentSpec,
    transform: Transform,
    samples: Sequence[Sample],
    read: Read = read_file,  # noqa: PT028
) -> Iterator[tuple[Images, Labels]]:
    """Batches of all samples in their order: float32 images (N, H, W, 3) and int64 labels (N,).

    Where several processes share a batch, the images are this one's (`common.parallel.share_to_test`).
    """
    return ImageSource(read).test_batches(spec, transform, samples)


class ImageSource:
    """Batches of images that `read` gives, through `train_batches` and `test_batches`.

    Test images are the same in every epoch: from the second time on they are kept cropped, up to KEPT_BYTES.
    """

    def __init__(self, read: Read = read_file) -> None:
        self.read = read
        self.crops: dict[tuple[Sample, Transform], Image.Image] = {}
        self.asked: set[tuple[Sample, Transform]] = set()
        self.room = KEPT_BYTES

    def train_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
    ) -> Iterator[tuple[Images, Labels]]:
        """See `train_batches`."""
        return train_batches(spec, transform, samples, epoch, self.read)

    def test_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
    ) -> Iterator[tuple[Images, Labels]]:
        """See `test_batches`."""

        def load(index: int, out: Images) -> None:
            normalise(self.crop(samples[index], transform), transform, out)

        return _batches(load, samples, range(len(samples)), spec, transform, parallel.share_to_test)

    def on_device(self, backend: Backend, images: Images, labels: Labels) -> tuple[Any, Any]:
        """A batch as the backend takes it."""
        return backend.from_shared(images, labels)

    def crop(self, sample: Sample, transform: Transform) -> Image.Image:
        """The image cropped for a test, 8-bit RGB; threads may call it at once."""
        known = self.crops.get((sample, transform))
        if known is not None:
            return known
        image = crop_for_test(self.read(sample), transform)
        if (sample, transform) in self.asked and self.room > 0:
            # Pillow holds four bytes a pixel.
            self.room -= 4 * image.width * image.height
            self.crops[sample, transform] = image
        self.asked.add((sample, transform))
        return image


def train_image(image: Image.Image, transform: Transform, seed: int, epoch: int, sample: int) -> Images:
    """One augmented training image (H, W, 3), float32, normalised."""
    return normalise(augment(image, transform, seed, epoch, sample), transform)


def augment(image: Image.Image, transform: Transform, seed: int, epoch: int, sample: int) -> Image.Image:
    """One augmented training image, 8-bit RGB."""
    return cut_out(image, training_cut(image.size, transform, seed, epoch, sample), transform)


def test_image(image: Image.Image, transform: Transform) -> Images:
    """One test image (H, W, 3), float32, normalised: resized, then cropped at the centre."""
    return normalise(crop_for_test(image, transform), transform)


def crop_for_test(image: Image.Image, transform: Transform) -> Image.Image:
    """The square of the transform's size at the centre of the resized image."""
    return cut_out(image, test_cut(image.size, transform), transform)


def resize_for_test(image: Image.Image, transform: Transform) -> Image.Image:
    """The image resized as before the test's crop: its short side, or both sides, to the transform's size."""
    return image.resize(resized_for_test(image.size, transform), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Cut:
    """How an image becomes the square that the network sees, in pixels: `box` of it is resized to `resized`, of which
    the square at `corner` is taken and perhaps mirrored."""

    box: tuple[int, int, int, int]
    """Left, top, right, bottom."""
    resized: tuple[int, int]
    """Width and height."""
    corner: tuple[int, int] = (0, 0)
    """Left and top."""
    mirrored: bool = False


def training_cut(size: tuple[int, int], transform: Transform, seed: int, epoch: int, sample: int) -> Cut:
    """The cut of a training image of `size`, its width and height, with its random draws."""
    draws = _generator(seed, _AUGMENTATION, epoch, sample).random(2 + 4 * _CROP_TRIES)
    side = transform.image_size
    if transform.train_crop == "random_resized_crop":
        cut = Cut(random_crop_box(*size, draws[1:]), (side, side))
    elif transform.train_crop == "none":
        cut = test_cut(size, transform)
    else:
        width, height = resized_for_test(size, transform)
        corner = int(draws[1] * (width - side + 1)), int(draws[2] * (height - side + 1))
        cut = Cut((0, 0, *size), (width, height), corner)
    return replace(cut, mirrored=transform.flip and bool(draws[0] < 0.5))


def test_cut(size: tuple[int, int], transform: Transform) -> Cut:
    """The cut of a test image of `size`, its width and height: at the centre of the resized image."""
    width, height = resized_for_test(size, transform)
    side = transform.image_size
    return Cut((0, 0, *size), (width, height), (round((width - side) / 2), round((height - side) / 2)))


def resized_for_test(size: tuple[int, int], transform: Transform) -> tuple[int, int]:
    """Width and height that an image of `size` is resized to before the test's crop."""
    if transform.test_resize == "squash":
        return transform.resize_size, transform.resize_size
    # torchvision truncates the long side, so this does.
    width, height = (transform.resize_size * side // min(size) for side in size)
    return width, height


def cut_out(image: Image.Image, cut: Cut, transform: Transform) -> Image.Image:
    """The square of an image that `cut` describes."""
    side, (left, top) = transform.image_size, cut.corner
    image = image.resize(cut.resized, Image.Resampling.BILINEAR, box=cut.box)
    if cut.resized != (side, side):
        image = image.crop((left, top, left + side, top + side))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if cut.mirrored else image


def random_crop_box(width: int, height: int, draws: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """A crop of random area and aspect ratio as (left, top, right, bottom), in pixels.

    draws: uniform numbers in [0, 1), four a try. After ten tries that do not fit, the largest centred crop whose
    aspect ratio is within CROP_RATIO, as in torchvision's RandomResizedCrop.
    """
    low, high = np.log(CROP_RATIO[0]), np.log(CROP_RATIO[1])
    for attempt in range(_CROP_TRIES):
        for_area, for_ratio, for_left, for_top = draws[4 * attempt : 4 * attempt + 4]
        area = width * height * (CROP_AREA[0] + for_area * (CROP_AREA[1] - CROP_AREA[0]))
        ratio = np.exp(low + for_ratio * (high - low))
        crop_width, crop_height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = int(for_left * (width - crop_width + 1)), int(for_top * (height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    crop_width, crop_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def normalise(image: Image.Image, transform: Transform, out: Images | None = None) -> Images:
    """An RGB image as float32 (H, W, 3) in the channel order, scale, mean and deviation of the weights.

    out: where to write it, contiguous.
    """
    pixels = np.asarray(image)
    out = np.empty(pixels.shape, np.float32) if out is None else out
    if transform.channel_order == "BGR":
        pixels = pixels[..., ::-1]
    # Rows as long as the image's: NumPy is slow where the last axis has three values only.
    rows = out.reshape(len(out), -1)
    mean, std = (np.tile(np.asarray(values, np.float32), image.width) for values in (transform.mean, transform.std))
    np.multiply(pixels.reshape(rows.shape), np.float32(transform.scale), out=rows, dtype=np.float32)
    np.subtract(rows, mean, out=rows)
    np.divide(rows, std, out=rows)
    return out


def ahead(function: Callable[[Item], Result], items: Iterable[Item], workers: int, look_ahead: int) -> Iterator[Result]:
    """`map` in the order of `items`, computed up to `look_ahead` results early by `workers` threads (0: none).

    Pillow gives up the interpreter lock while it decodes and resizes, so threads are enough.
    """
    if workers == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque[Future[Result]] = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > look_ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _batches(
    load: Callable[[int, Images], None],
    samples: Sequence[Sample],
    order: Sequence[int],
    spec: ExperimentSpec,
    transform: Transform,
    share: Callable[[Sequence[int], int], Sequence[int]],
) -> Iterator[tuple[Images, Labels]]:
    """Batches whose images `load(index, out)` writes to their places in them; `share` says which are this process's."""
    chunks = [order[start : start + spec.batch_size] for start in range(0, len(order), spec.batch_size)]
    shares = [share(chunk, spec.devices) for chunk in chunks]

    def places() -> Iterator[tuple[int, Images, Images]]:
        for own in shares:
            # A new array each time: some frameworks go on using the memory of the one they were given.
            images = np.empty((len(own), transform.image_size, transform.image_size, 3), np.float32)
            yield from ((index, out, images) for index, out in zip(own, images, strict=True))

    def fill(place: tuple[int, Images, Images]) -> Images:
        index, out, images = place
        load(index, out)
        return images

    filled = ahead(fill, places(), spec.workers, look_ahead=2 * spec.batch_size)
    for chunk, own in zip(chunks, shares, strict=True):
        for _ in own:
            images = next(filled)
        yield images, np.array([samples[index].label for index in chunk], np.int64)


def _generator(*key: Any) -> np.random.Generator:
    # Of the generator only `random` is used: its stream is the same in every NumPy from 1.17 on.
    return np.random.default_rng([int(part) for part in key])
