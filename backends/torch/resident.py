"""Images in the device's memory, and batches that PyTorch makes from them there."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backends.torch.runtime import find_device
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places
from common.preprocessing.transforms import Labels
from common.spec.experiment import ExperimentSpec


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
        images = resize_rows(images, *coefficients(axis, frame.side, length))
    images = torch.where(turned, images.mT, images) if frame.turns else images
    mean, std = (copy_ahead(np.array(values, np.float32), device)[:, None, None] for values in (frame.mean, frame.std))
    return (images * frame.scale - mean) / std, copy_ahead(labels, device)


def coefficients(axis: Tensor, side: int, length: int) -> tuple[Tensor, Tensor]:
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
