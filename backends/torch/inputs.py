"""Input pipelines in PyTorch: the shared one's batches as tensors, and torchvision's transforms with a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from backends.torch.runtime import find_device
from common.data.folder import Sample
from common.data.images import open_rgb
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


def from_shared(images: Images, labels: Labels) -> tuple[Tensor, Tensor]:
    """See `common.contract.backend.Backend.from_shared`: images become (N, 3, H, W)."""
    return torch.from_numpy(images).movedim(-1, 1), torch.from_numpy(labels)


def to_device(spec: ExperimentSpec, pixels: NDArray[np.uint8]) -> Tensor:
    """See `common.contract.backend.Backend.to_device`."""
    return torch.from_numpy(pixels).to(find_device(spec))


def resident_batch(store: Tensor, places: Places, frame: Frame, labels: Labels) -> tuple[Tensor, Tensor]:
    """See `common.contract.backend.Backend.resident_batch`."""
    device = store.device
    segments, turned, first, second = (copy_ahead(array, device) for array in places)
    begin, across = segments[:, :, None, None]
    rows, pieces = (torch.arange(count, device=device) for count in (frame.height, frame.width // SEGMENT))
    places_in_store = (begin + across * rows[:, None] + pieces).clamp(max=len(store) - 1)
    images = store[places_in_store].reshape(-1, frame.height, frame.width, 3).movedim(-1, 1).float()
    turned = turned[:, None, None, None]
    images = torch.where(turned, images.mT, images) if frame.turns else images
    for axis, length in ((first, frame.width), (second, frame.height)):
        images = resize_rows(images, *weights(axis, frame.side, length))
    images = torch.where(turned, images.mT, images) if frame.turns else images
    mean, std = (copy_ahead(np.array(values, np.float32), device)[:, None, None] for values in (frame.mean, frame.std))
    return (images * frame.scale - mean) / std, copy_ahead(labels, device)


def weights(axis: Tensor, side: int, length: int) -> tuple[Tensor, Tensor]:
    """What each of `length` pixels along an axis counts in each output pixel: (N, side, length), in two digits."""
    unit, start, step, reach, size = axis.int()[:, :, None, None]
    pixels, outputs = (torch.arange(count, dtype=torch.int32, device=axis.device) for count in (length, side))
    distance = ((2 * pixels + 1) * unit - (start + step * outputs[:, None])).abs()
    counts = (reach - distance).clamp(min=0) * (pixels < size)
    total = counts.sum(dim=-1, keepdim=True, dtype=torch.int32)
    high = DIGIT * counts // total
    low = (DIGIT * (DIGIT * counts - high * total) + total // 2) // total
    return high.float(), low.float()


def resize_rows(images: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """Images (N, 3, H, W) with their rows resized to whole numbers, and transposed: (N, 3, side, H)."""
    high, low = (torch.einsum("nchw,nsw->ncsh", images, digit) for digit in (high, low))
    return ((high + (low / DIGIT).floor() + DIGIT // 2) / DIGIT).floor()


def copy_ahead(array: NDArray, device: torch.device) -> Tensor:
    """An array on the device, without waiting for a GPU: only memory that is pinned is copied in the background."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def native_train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
) -> Iterable[tuple[Tensor, Tensor]]:
    """See `common.contract.backend.Backend.native_train_batches`."""
    size = transform.image_size
    if transform.train_crop == "random_resized_crop":
        crop = [v2.RandomResizedCrop(size)]
    elif transform.train_crop == "none":
        crop = [resize(transform), v2.CenterCrop(size)]
    else:
        crop = [resize(transform), v2.RandomCrop(size)]
    flip = [v2.RandomHorizontalFlip()] if transform.flip else []
    augmentation = v2.Compose([*crop, *flip, *to_tensor(transform)])
    # The generator seeds the order and, through it, the worker processes.
    generator = torch.Generator().manual_seed(1_000_003 * spec.seed + epoch)
    torch.manual_seed(generator.initial_seed())
    return DataLoader(
        ImageDataset(samples, augmentation), spec.batch_size, shuffle=True, num_workers=spec.workers,
        generator=generator,
    )  # fmt: skip


def native_test_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
) -> Iterable[tuple[Tensor, Tensor]]:
    """See `common.contract.backend.Backend.native_test_batches`."""
    steps = v2.Compose([resize(transform), v2.CenterCrop(transform.image_size), *to_tensor(transform)])
    return DataLoader(ImageDataset(samples, steps), spec.batch_size, num_workers=spec.workers)


def resize(transform: Transform) -> v2.Resize:
    """Resize the short side, or with an explicit pair both sides, as the chapter does."""
    size = transform.resize_size
    return v2.Resize([size, size] if transform.test_resize == "squash" else size)


def to_tensor(transform: Transform) -> list[v2.Transform]:
    """From a Pillow image to normalised float32 (3, H, W)."""
    # (v * scale - mean) / std, with the scale moved into mean and std.
    mean, std = ([value / transform.scale for value in values] for values in (transform.mean, transform.std))
    channels = [] if transform.channel_order == "RGB" else [v2.Lambda(reverse_channels)]
    return [v2.ToImage(), v2.ToDtype(torch.float32), *channels, v2.Normalize(mean, std)]


def reverse_channels(image: Tensor) -> Tensor:
    """RGB to BGR."""
    return image.flip(0)


class ImageDataset(Dataset):
    """Samples as (image, label), decoded like everywhere in this project: upright and RGB."""

    def __init__(self, samples: Sequence[Sample], transform: v2.Transform) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(open_rgb(self.samples[index].path)), self.samples[index].label
