"""The images of an experiment in the device's memory, and batches that PyTorch makes from them there."""

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
    """Copy the pixels of all images, (segments, SEGMENT, 3) uint8, to the device of `spec`."""
    return torch.from_numpy(pixels).to(find_device(spec))


def resident_batch(store: Tensor, places: Places, frame: Frame, labels: Labels) -> tuple[Tensor, Tensor]:
    """Make a batch on the device from what `to_device` returned, with operations that PyTorch queues one by one.

    Only the batch's places, labels and normalisation are copied to the device, and the host does not wait for that.

    Args:
        store: The pixels of all images, (segments, SEGMENT, 3) uint8.
        places: Where the N images are, and where the pixels of their squares look.
        frame: Rows and pixels to gather of each image, side of the squares, and normalisation.
        labels: (N,) int64.

    Returns:
        Images (N, 3, side, side) float32 and labels (N,), on the device of `store`. Pixels are resized as Pillow does,
        by the formula of `common.contract.backend.Backend.resident_batch`.
    """
    device = store.device
    segments, turned, first, second, content = (copy_ahead(array, device) for array in places)
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
    images = (images * frame.scale - mean) / std
    images = torch.where(covered(content, frame.side), images, 0) if frame.padded else images
    return images, copy_ahead(labels, device)


def coefficients(axis: Tensor, side: int, length: int) -> tuple[Tensor, Tensor]:
    """Compute the resampling coefficients along one axis, each as two whole digits.

        distance[i, x] = |(2 x + 1) unit - (start + i step)|
        w[i, x] = max(0, reach - distance[i, x]), and 0 for x >= size
        DIGIT high[i, x] + low[i, x] = w[i, x] / max(1, sum_x w[i, x]) * DIGIT^2, rounded half upwards

    Args:
        axis: (5, N): unit, start, step, reach and size of each image, as in `Places.first`.
        side: Number of output pixels i.
        length: Number of input pixels x.

    Returns:
        high and low, (N, side, length) float32. All before is int32, which `common.batches.resident.check_size` allows.
    """
    unit, start, step, reach, size = axis.int()[:, :, None, None]
    pixels, outputs = (torch.arange(count, dtype=torch.int32, device=axis.device) for count in (length, side))
    distance = ((2 * pixels + 1) * unit - (start + step * outputs[:, None])).abs()
    counts = (reach - distance).clamp(min=0) * (pixels < size)
    total = counts.sum(dim=-1, keepdim=True, dtype=torch.int32).clamp(min=1)
    high = DIGIT * counts // total
    low = (DIGIT * (DIGIT * counts - high * total) + total // 2) // total
    return high.float(), low.float()


def resize_rows(images: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """Resize the rows of images to whole numbers, and transpose the images.

        output = (sum_x (DIGIT high + low) pixel) / DIGIT^2, rounded half upwards

    Args:
        images: (N, 3, H, W) float32, whole numbers.
        high: (N, side, W) float32, the first digit of the coefficients.
        low: (N, side, W) float32, the second.

    Returns:
        (N, 3, side, H) float32: transposed, so that a second call resizes the other axis.
    """
    high, low = (torch.einsum("nchw,nsw->ncsh", images, digit) for digit in (high, low))
    return ((high + (low / DIGIT).floor() + DIGIT // 2) / DIGIT).floor()


def covered(content: Tensor, side: int) -> Tensor:
    """Return where images cover their squares: (N, 1, side, side) bool, of `Places.content`, (4, N)."""
    places = torch.arange(side, device=content.device)
    left, top, right, bottom = content[:, :, None]
    columns, rows = (left <= places) & (places < right), (top <= places) & (places < bottom)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def copy_ahead(array: NDArray, device: torch.device) -> Tensor:
    """Copy an array to the device without waiting for a GPU, which copies in the background from pinned memory only."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
