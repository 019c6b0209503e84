"""Input pipelines in MXNet: the shared one's batches as arrays, and Gluon's transforms with a DataLoader."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import mxnet as mx
import numpy
from mxnet import np, npx
from mxnet.gluon.block import Block
from mxnet.gluon.data import DataLoader, Dataset
from mxnet.gluon.data.vision import transforms

from backends.mxnet.runtime import find_device
from common.data.folder import Sample
from common.data.images import open_rgb
from common.preprocessing.draws import epoch_order
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError


def from_shared(images: Images, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """See `common.contract.backend.Backend.from_shared`: images become (N, 3, H, W)."""
    return np.array(numpy.moveaxis(images, -1, 1), dtype="float32"), np.array(labels, dtype="int64")


def to_device(spec: ExperimentSpec, pixels: numpy.ndarray) -> np.ndarray:
    """See `common.contract.backend.Backend.to_device`. Raises UserError for more values than MXNet can count."""
    if pixels.size >= 2**31 and not mx.runtime.Features().is_enabled("INT64_TENSOR_SIZE"):
        raise UserError(
            f"pipeline = resident: {pixels.size / 2**30:.1f} GiB of pixels, but an array of this MXNet holds less than "
            "2 GiB of them; choose --pipeline shared"
        )
    return np.array(pixels, dtype="uint8", ctx=find_device(spec))


def resident_batch(store: np.ndarray, places: Places, frame: Frame, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """See `common.contract.backend.Backend.resident_batch`."""
    device = store.ctx
    segments, turned, first, second = (np.array(array, dtype=array.dtype, ctx=device) for array in places)
    begin, across = segments[:, :, None, None]
    rows, pieces = (np.arange(n, dtype="int64", ctx=device) for n in (frame.height, frame.width // SEGMENT))
    places_in_store = begin + across * rows[:, None] + pieces
    images = np.take(store, places_in_store, axis=0, mode="clip").reshape(-1, frame.height, frame.width, 3)
    images = images.transpose(0, 3, 1, 2).astype("float32")
    turned = turned[:, None, None, None]
    images = np.where(turned, images.swapaxes(2, 3), images) if frame.turns else images
    for axis, length in ((first, frame.width), (second, frame.height)):
        images = resize_rows(images, *weights(axis, frame.side, length))
    images = np.where(turned, images.swapaxes(2, 3), images) if frame.turns else images
    mean, std = (np.array(values, dtype="float32", ctx=device)[:, None, None] for values in (frame.mean, frame.std))
    return (images * frame.scale - mean) / std, np.array(labels, dtype="int64", ctx=device)


def weights(axis: np.ndarray, side: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of `length` pixels along an axis counts in each output pixel: (N, side, length), in two digits."""
    # MXNet does not divide whole numbers; in float64 all of this is as exact.
    unit, start, step, reach, size = axis.astype("float64")[:, :, None, None]
    pixels, outputs = (np.arange(n, dtype="float64", ctx=axis.ctx) for n in (length, side))
    distance = np.abs((2 * pixels + 1) * unit - (start + step * outputs[:, None]))
    counts = np.maximum(reach - distance, 0) * (pixels < size)
    total = counts.sum(axis=-1, keepdims=True)
    high = np.floor(DIGIT * counts / total)
    low = np.floor((DIGIT * (DIGIT * counts - high * total) + np.floor(total / 2)) / total)
    return high.astype("float32"), low.astype("float32")


def resize_rows(images: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Images (N, 3, H, W) with their rows resized to whole numbers, and transposed: (N, 3, side, H)."""
    count, _, height, width = images.shape
    rows = images.reshape(count, 3 * height, width)
    high, low = (npx.batch_dot(rows, digit, transpose_b=True) for digit in (high, low))
    resized = np.floor((high + np.floor(low / DIGIT) + DIGIT // 2) / DIGIT)
    return resized.reshape(count, 3, height, -1).swapaxes(2, 3)


def native_train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """See `common.contract.backend.Backend.native_train_batches`."""
    size = transform.image_size
    if transform.train_crop == "random_resized_crop":
        crop = [transforms.RandomResizedCrop(size)]
    elif transform.train_crop == "none":
        crop = [resize(transform), transforms.CenterCrop(size)]
    else:
        crop = [resize(transform), RandomCrop(size)]
    flip = [transforms.RandomFlipLeftRight()] if transform.flip else []
    augmentation = transforms.Compose([*crop, *flip, *to_tensor(transform)])
    dataset = ImageDataset(samples, augmentation, (spec.seed, epoch))
    # DataLoader(shuffle=True) would draw from NumPy's global generator.
    order = epoch_order(len(samples), spec.seed, epoch).tolist()
    return DataLoader(dataset, spec.batch_size, sampler=order, num_workers=spec.workers)


def native_test_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """See `common.contract.backend.Backend.native_test_batches`."""
    steps = transforms.Compose([resize(transform), transforms.CenterCrop(transform.image_size), *to_tensor(transform)])
    return DataLoader(ImageDataset(samples, steps), spec.batch_size, num_workers=spec.workers)


def resize(transform: Transform) -> transforms.Resize:
    """Resize the short side, or, as Gluon does unless told and the chapter does too, both."""
    return transforms.Resize(transform.resize_size, keep_ratio=transform.test_resize == "short_side")


def to_tensor(transform: Transform) -> list[Block]:
    """From an 8-bit (H, W, 3) image to normalised float32 (3, H, W)."""
    # ToTensor divides by 255; what the scale differs from that moves into mean and std.
    factor = 255 * transform.scale
    mean, std = (tuple(value / factor for value in values) for values in (transform.mean, transform.std))
    channels = [] if transform.channel_order == "RGB" else [ReverseChannels()]
    return [transforms.ToTensor(), *channels, transforms.Normalize(mean, std)]


class RandomCrop(Block):
    """A square of `size` pixels at a random place; Gluon has it as a function, not as a transform."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: np.ndarray) -> np.ndarray:
        return mx.image.random_crop(image, (self.size, self.size))[0]


class ReverseChannels(Block):
    """RGB to BGR."""

    def forward(self, image: np.ndarray) -> np.ndarray:
        return image[::-1]


class ImageDataset(Dataset):
    """Samples as (image, label), decoded like everywhere in this project: upright and RGB.

    seed: what the random draws of a sample depend on besides its index; None where nothing is drawn.
    """

    def __init__(self, samples: Sequence[Sample], transform: Block, seed: tuple[int, int] | None = None) -> None:
        self.samples, self.transform, self.seed = samples, transform, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if self.seed is not None:
            # Workers start as copies of one process: without this they would all draw the same crops and flips.
            state = int(numpy.random.SeedSequence([*self.seed, index]).generate_state(1)[0])
            # Gluon's crops draw from Python's generator, its flips from MXNet's.
            random.seed(state)
            mx.random.seed(state)
        image = np.array(numpy.asarray(open_rgb(self.samples[index].path)), dtype="uint8")
        return self.transform(image), self.samples[index].label
