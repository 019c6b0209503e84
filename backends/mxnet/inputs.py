"""Input pipelines for MXNet: the shared pipeline's batches as arrays, and Gluon's transforms with a DataLoader."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import mxnet as mx
import numpy
from mxnet import np
from mxnet.gluon.block import Block
from mxnet.gluon.data import DataLoader, Dataset
from mxnet.gluon.data.vision import transforms

from common.data.folder import Sample, read_file
from common.preprocessing.crops import resized_for_test
from common.preprocessing.random_streams import epoch_order
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


def from_shared(images: Images, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of the shared pipeline for MXNet: images become (N, 3, H, W) float32, labels (N,) stay int64."""
    return np.array(numpy.moveaxis(images, -1, 1), dtype="float32"), np.array(labels, dtype="int64")


def native_train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Return one epoch of shuffled, augmented batches from Gluon's transforms and its DataLoader.

    The order is drawn here from the experiment's seed and the epoch; `ImageDataset` seeds each image's own draws.

    Args:
        spec: The experiment: seed, batch size and number of worker processes (`workers`).
        transform: The preprocessing and augmentation.
        samples: The training images.
        epoch: Number of the epoch, which makes its draws differ from those of the others.

    Returns:
        Batches of images, (N, 3, H, W) float32, and labels (N,); the last one may be smaller.
    """
    size = transform.image_size
    if transform.train_crop == "random_resized_crop":
        crop = [transforms.RandomResizedCrop(size)]
    elif transform.train_crop == "none":
        crop = [resize(transform), *centre_crop(transform)]
    else:
        crop = [resize(transform), RandomCrop(size)]
    flip = [transforms.RandomFlipLeftRight()] if transform.flip else []
    augmentation = transforms.Compose([*crop, *flip, *to_tensor(transform), *borders(transform)])
    dataset = ImageDataset(samples, augmentation, transform.presized_side, (spec.seed, epoch))
    # DataLoader(shuffle=True) would draw from NumPy's global generator.
    order = epoch_order(len(samples), spec.seed, epoch).tolist()
    return DataLoader(dataset, spec.batch_size, sampler=order, num_workers=spec.workers)


def native_test_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Return all samples in order, in batches from Gluon's transforms and its DataLoader."""
    steps = transforms.Compose([resize(transform), *centre_crop(transform), *to_tensor(transform), *borders(transform)])
    return DataLoader(ImageDataset(samples, steps, transform.presized_side), spec.batch_size, num_workers=spec.workers)


def resize(transform: Transform) -> Block:
    """Resize the short side, both sides as Gluon and the chapter do by default, or the long side (`letterbox`)."""
    if transform.test_resize == "letterbox":
        return Fit(transform)
    return transforms.Resize(transform.resize_size, keep_ratio=transform.test_resize == "short_side")


def centre_crop(transform: Transform) -> list[Block]:
    """Return the crop of a resized image at its centre; none with letterbox, whose images are not larger."""
    return [] if transform.test_resize == "letterbox" else [transforms.CenterCrop(transform.image_size)]


def borders(transform: Transform) -> list[Block]:
    """Return the step that puts zeros around a normalised image with letterbox, and nothing otherwise."""
    return [Borders(transform.image_size)] if transform.test_resize == "letterbox" else []


def to_tensor(transform: Transform) -> list[Block]:
    """Return the transforms from an 8-bit (H, W, 3) image to normalised float32 (3, H, W)."""
    # ToTensor divides by 255. Where the scale is not 1 / 255, dividing mean and std by 255 * scale makes up for it.
    factor = 255 * transform.scale
    mean, std = (tuple(value / factor for value in values) for values in (transform.mean, transform.std))
    channels = [] if transform.channel_order == "RGB" else [ReverseChannels()]
    return [transforms.ToTensor(), *channels, transforms.Normalize(mean, std)]


class Fit(Block):
    """Resize the long side of an image (H, W, 3) to that of the square."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.preprocessing = transform

    def forward(self, image: np.ndarray) -> np.ndarray:
        """Return the resized image, without smoothing before, as Gluon's Resize does it."""
        height, width, _ = image.shape
        return mx.image.imresize(image, *resized_for_test((width, height), self.preprocessing))


class Borders(Block):
    """Put an image (3, H, W) at the centre of a square of zeros, `size` pixels a side."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: np.ndarray) -> np.ndarray:
        """Return the square, (3, size, size)."""
        _, height, width = image.shape
        top, left = (self.size - height) // 2, (self.size - width) // 2
        return np.pad(image, ((0, 0), (top, self.size - height - top), (left, self.size - width - left)))


class RandomCrop(Block):
    """Cut a square of `size` pixels at a random place out of an image.

    Gluon has this as a function, not as a transform.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: np.ndarray) -> np.ndarray:
        """Return the cropped image, (size, size, 3), of an image (H, W, 3)."""
        return mx.image.random_crop(image, (self.size, self.size))[0]


class ReverseChannels(Block):
    """Reverse the order of the channels: RGB to BGR."""

    def forward(self, image: np.ndarray) -> np.ndarray:
        """Return an image (3, H, W) with its channels in the opposite order."""
        return image[::-1]


class ImageDataset(Dataset):
    """Give samples as (image, label), the images decoded as everywhere in this project: upright and RGB.

    Args:
        samples: The images' paths and labels.
        transform: The Gluon transform of each image.
        short_side: The short side in pixels to which larger images are reduced; None for images as they are.
        seed: Seed and epoch, from which with its index a sample's random draws follow; None if nothing is drawn.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Block,
        short_side: int | None,
        seed: tuple[int, int] | None = None,
    ) -> None:
        self.samples, self.transform, self.short_side, self.seed = samples, transform, short_side, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if self.seed is not None:
            # Workers start as copies of one process; without this seed they would all draw the same crops and flips.
            state = int(numpy.random.SeedSequence([*self.seed, index]).generate_state(1)[0])
            # Gluon's crops draw from Python's generator, its flips from MXNet's.
            random.seed(state)
            mx.random.seed(state)
        image = np.array(numpy.asarray(read_file(self.samples[index], self.short_side)), dtype="uint8")
        return self.transform(image), self.samples[index].label
