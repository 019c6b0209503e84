"""Input pipelines in MXNet: the shared one's batches as arrays, and Gluon's transforms with a DataLoader."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import mxnet as mx
import numpy
from mxnet import np
from mxnet.gluon.block import Block
from mxnet.gluon.data import DataLoader, Dataset
from mxnet.gluon.data.vision import transforms

from common.data.folder import Sample
from common.data.images import open_rgb
from common.preprocessing.draws import epoch_order
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


def from_shared(images: Images, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """See `common.contract.backend.Backend.from_shared`: images become (N, 3, H, W)."""
    return np.array(numpy.moveaxis(images, -1, 1), dtype="float32"), np.array(labels, dtype="int64")


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
