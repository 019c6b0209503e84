"""Input pipelines in PyTorch: the shared batches as tensors, and torchvision's transforms with a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from common.data.folder import Sample, read_file
from common.preprocessing.crops import resized_for_test
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


def from_shared(images: Images, labels: Labels) -> tuple[Tensor, Tensor]:
    """Return a batch of the shared pipeline as tensors in main memory that view the same arrays, without a copy.

    Args:
        images: (N, H, W, 3) float32, or feature vectors (N, features).
        labels: (N,) int64.

    Returns:
        Images (N, 3, H, W), or the feature vectors as they are, and labels (N,).
    """
    return torch.from_numpy(images).movedim(-1, 1), torch.from_numpy(labels)


def native_train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
) -> Iterable[tuple[Tensor, Tensor]]:
    """Return one epoch of shuffled, augmented batches from torchvision's transforms and a DataLoader.

    The DataLoader has `spec.workers` worker processes. The seed of an epoch is 1000003 * `spec.seed` + `epoch`.

    Args:
        spec: The experiment.
        transform: Sizes, crop, flip and normalisation.
        samples: The training samples.
        epoch: Number of the epoch, which changes order and augmentation.

    Returns:
        Batches of images (N, 3, H, W) float32 and labels (N,) int64; the last may be smaller.
    """
    size = transform.image_size
    if transform.train_crop == "random_resized_crop":
        crop = [v2.RandomResizedCrop(size)]
    elif transform.train_crop == "none":
        crop = [resize(transform), *centre_crop(transform)]
    else:
        crop = [resize(transform), v2.RandomCrop(size)]
    flip = [v2.RandomHorizontalFlip()] if transform.flip else []
    augmentation = v2.Compose([*crop, *flip, *to_tensor(transform), *borders(transform)])
    # The generator seeds the order and, through it, the worker processes.
    generator = torch.Generator().manual_seed(1_000_003 * spec.seed + epoch)
    torch.manual_seed(generator.initial_seed())
    return DataLoader(
        ImageDataset(samples, augmentation, transform.presized_side), spec.batch_size, shuffle=True,
        num_workers=spec.workers, generator=generator,
    )  # fmt: skip


def native_test_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
) -> Iterable[tuple[Tensor, Tensor]]:
    """Return all samples in order, cropped at the centre, from torchvision's transforms and a DataLoader."""
    steps = v2.Compose([resize(transform), *centre_crop(transform), *to_tensor(transform), *borders(transform)])
    return DataLoader(ImageDataset(samples, steps, transform.presized_side), spec.batch_size, num_workers=spec.workers)


def resize(transform: Transform) -> v2.Transform:
    """Return the step that resizes the short side, both sides (`squash`, as the chapter), or the long (`letterbox`)."""
    size = transform.resize_size
    if transform.test_resize == "letterbox":
        return v2.Lambda(partial(fit, transform))
    return v2.Resize([size, size] if transform.test_resize == "squash" else size)


def fit(transform: Transform, image: Image) -> Image:
    """Resize an image's long side to the square's, where v2.Resize would make a side of no pixel of a very long one."""
    width, height = resized_for_test(image.size, transform)
    return v2.functional.resize(image, [height, width])


def centre_crop(transform: Transform) -> list[v2.Transform]:
    """Return the crop of a resized image at its centre; none with letterbox, whose images are not larger."""
    return [] if transform.test_resize == "letterbox" else [v2.CenterCrop(transform.image_size)]


def borders(transform: Transform) -> list[v2.Transform]:
    """Return the step that puts zeros around a normalised image with letterbox, and nothing otherwise."""
    # Around an image smaller than the crop, CenterCrop puts zeros.
    return [v2.CenterCrop(transform.image_size)] if transform.test_resize == "letterbox" else []


def to_tensor(transform: Transform) -> list[v2.Transform]:
    """Return the steps that turn a Pillow image into normalised float32 (3, H, W)."""
    # (v * scale - mean) / std, with the scale moved into mean and std.
    mean, std = ([value / transform.scale for value in values] for values in (transform.mean, transform.std))
    channels = [] if transform.channel_order == "RGB" else [v2.Lambda(reverse_channels)]
    return [v2.ToImage(), v2.ToDtype(torch.float32), *channels, v2.Normalize(mean, std)]


def reverse_channels(image: Tensor) -> Tensor:
    """Turn an image (3, H, W) from RGB to BGR."""
    return image.flip(0)


class ImageDataset(Dataset):
    """Samples as pairs (image, label), decoded as everywhere in this project: upright, RGB and reduced if asked."""

    def __init__(self, samples: Sequence[Sample], transform: v2.Transform, short_side: int | None) -> None:
        self.samples, self.transform, self.short_side = samples, transform, short_side

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        sample = self.samples[index]
        return self.transform(read_file(sample, self.short_side)), sample.label
