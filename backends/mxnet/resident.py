"""Images in the device's memory, and batches that MXNet makes of them there, operation by operation."""

from __future__ import annotations

import mxnet as mx
import numpy
from mxnet import np, npx

from backends.mxnet.runtime import find_device
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places
from common.preprocessing.transforms import Labels
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError


def to_device(spec: ExperimentSpec, pixels: numpy.ndarray) -> np.ndarray:
    """Copy the pixels of all images, (segments, SEGMENT, 3) uint8, to the experiment's device.

    Args:
        spec: The experiment.
        pixels: The pixels of all images.

    Returns:
        The MXNet array.

    Raises:
        UserError: There are 2**31 values or more, and this MXNet was built without large arrays.
    """
    if pixels.size >= 2**31 and not mx.runtime.Features().is_enabled("INT64_TENSOR_SIZE"):
        raise UserError(
            f"pipeline = resident: {pixels.size / 2**30:.1f} GiB of pixels, but an array of this MXNet holds less than "
            "2 GiB of them; choose --pipeline shared"
        )
    return np.array(pixels, dtype="uint8", ctx=find_device(spec))


def resident_batch(store: np.ndarray, places: Places, frame: Frame, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Make a batch as `from_shared` gives it, on the device, from the pixels in `store`.

    `common.contract.backend.Backend.resident_batch` defines the arithmetic. The operations are queued one by one and
    nothing is compiled; MXNet returns before the device has computed. `np.take` in mode `clip` keeps the indices of
    rows below a smaller image inside the store.

    Args:
        store: What `to_device` returned.
        places: Where the images are, and where the pixels of their squares look.
        frame: The rows and pixels that are gathered, the side of the squares, and the normalisation.
        labels: (N,).

    Returns:
        The images, (N, 3, side, side) float32, and the labels, (N,) int64.
    """
    device = store.ctx
    segments, turned, first, second, content = (np.array(array, dtype=array.dtype, ctx=device) for array in places)
    begin, across = segments[:, :, None, None]
    rows, pieces = (np.arange(n, dtype="int64", ctx=device) for n in (frame.height, frame.width // SEGMENT))
    places_in_store = begin + across * rows[:, None] + pieces
    images = np.take(store, places_in_store, axis=0, mode="clip").reshape(-1, frame.height, frame.width, 3)
    images = images.transpose(0, 3, 1, 2).astype("float32")
    turned = turned[:, None, None, None]
    images = np.where(turned, images.swapaxes(2, 3), images) if frame.turns else images
    for axis, length in ((first, frame.width), (second, frame.height)):
        images = resize_rows(images, *coefficients(axis, frame.side, length))
    images = np.where(turned, images.swapaxes(2, 3), images) if frame.turns else images
    mean, std = (np.array(values, dtype="float32", ctx=device)[:, None, None] for values in (frame.mean, frame.std))
    images = (images * frame.scale - mean) / std
    images = np.where(covered(content, frame.side), images, 0) if frame.padded else images
    return images, np.array(labels, dtype="int64", ctx=device)


def coefficients(axis: np.ndarray, side: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the resampling coefficients along one axis as two digits: c = high / DIGIT + low / DIGIT**2.

    Pixel x counts w(x) = max(0, reach - |(2 x + 1) unit - (start + i step)|) for output pixel i, and 0 from `size` on.
    c = w(x) / max(1, sum of w), rounded to a multiple of DIGIT**-2, halves upwards.

    Args:
        axis: (5, N) unit, start, step, reach and size of each image, as in `Places.first`.
        side: Number of output pixels.
        length: Number of pixels along the axis that are gathered.

    Returns:
        high and low, each (N, side, length) float32 with whole numbers.
    """
    # MXNet has no division of whole numbers; in float64 all of this is as exact.
    unit, start, step, reach, size = axis.astype("float64")[:, :, None, None]
    pixels, outputs = (np.arange(n, dtype="float64", ctx=axis.ctx) for n in (length, side))
    distance = np.abs((2 * pixels + 1) * unit - (start + step * outputs[:, None]))
    counts = np.maximum(reach - distance, 0) * (pixels < size)
    total = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    high = np.floor(DIGIT * counts / total)
    low = np.floor((DIGIT * (DIGIT * counts - high * total) + np.floor(total / 2)) / total)
    return high.astype("float32"), low.astype("float32")


def resize_rows(images: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Resize the rows of images, round the values to whole numbers, halves upwards, and transpose the images.

    The sums of either digit are exact in float32 for up to 32 pixels at once (`common.preprocessing.resampling.DIGIT`).

    Args:
        images: (N, 3, H, W) float32 with whole numbers.
        high: (N, side, W) first digits of the resampling coefficients.
        low: (N, side, W) second digits.

    Returns:
        (N, 3, side, H): floor(sum of c * image + 1/2), transposed so that the columns can be resized next.
    """
    count, _, height, width = images.shape
    rows = images.reshape(count, 3 * height, width)
    high, low = (npx.batch_dot(rows, digit, transpose_b=True) for digit in (high, low))
    resized = np.floor((high + np.floor(low / DIGIT) + DIGIT // 2) / DIGIT)
    return resized.reshape(count, 3, height, -1).swapaxes(2, 3)


def covered(content: np.ndarray, side: int) -> np.ndarray:
    """Return where images cover their squares: (N, 1, side, side) bool, of `Places.content`, (4, N)."""
    places = np.arange(side, dtype="int64", ctx=content.ctx)
    left, top, right, bottom = content[:, :, None]
    columns, rows = (left <= places) * (places < right), (top <= places) * (places < bottom)
    return (rows[:, :, None] * columns[:, None, :])[:, None]
