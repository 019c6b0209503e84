"""Images in the device's memory, and batches that one compiled JAX function makes of them there."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from backends.jax import runtime
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places
from common.preprocessing.transforms import Labels
from common.spec.experiment import ExperimentSpec


def to_device(spec: ExperimentSpec, pixels: NDArray[np.uint8]) -> Array:
    """Copy the pixels of all images, (segments, SEGMENT, 3) uint8, to the experiment's device."""
    return jax.device_put(pixels, runtime.find_device(spec))


def resident_batch(store: Array, places: Places, frame: Frame, labels: Labels) -> tuple[Array, Array]:
    """Make a batch as `from_shared` gives it, on the device, from the pixels in `store`.

    `common.contract.backend.Backend.resident_batch` defines the arithmetic. `make_images` is its compiled part. JAX
    returns before the device has computed.

    Args:
        store: What `to_device` returned.
        places: Where the images are, and where the pixels of their squares look.
        frame: What the function is compiled for: the rows and pixels that are gathered, the side, the normalisation.
        labels: (N,).

    Returns:
        The images, (N, side, side, 3) float32, and the labels, (N,) int32.
    """
    return make_images(store, places, frame), jnp.asarray(labels.astype(np.int32))


@functools.partial(jax.jit, static_argnames=("frame",), compiler_options=runtime.COMPILER_OPTIONS)
def make_images(store: Array, places: Places, frame: Frame) -> Array:
    """Gather, resize and normalise the images of a batch: (N, side, side, 3) float32.

    XLA compiles the function once for each frame and number of images. It gathers with int32 indices, and resizes with
    two matrix products of float32, one along each axis.

    Args:
        store: (segments, SEGMENT, 3) uint8.
        places: Where the images are, and where the pixels of their squares look.
        frame: The sizes and the normalisation; a static argument.

    Returns:
        (value * scale - mean) / std of each value of the resized images, and 0 outside them.
    """
    begin, across = places.segments.astype(jnp.int32)[:, :, None, None]
    rows, pieces = (jnp.arange(count, dtype=jnp.int32) for count in (frame.height, frame.width // SEGMENT))
    places_in_store = jnp.minimum(begin + across * rows[:, None] + pieces, len(store) - 1)
    images = store[places_in_store].reshape(-1, frame.height, frame.width, 3)
    images = jnp.moveaxis(images, -1, 1).astype(jnp.float32)
    turned = places.turned[:, None, None, None]
    images = jnp.where(turned, images.mT, images) if frame.turns else images
    for axis, length in ((places.first, frame.width), (places.second, frame.height)):
        images = resize_rows(images, *coefficients(axis, frame.side, length))
    images = jnp.where(turned, images.mT, images) if frame.turns else images
    mean, std = (jnp.array(values, jnp.float32) for values in (frame.mean, frame.std))
    images = (jnp.moveaxis(images, 1, -1) * frame.scale - mean) / std
    return jnp.where(covered(places.content, frame.side), images, 0) if frame.padded else images


def coefficients(axis: Array, side: int, length: int) -> tuple[Array, Array]:
    """Compute the resampling coefficients along one axis as two digits: c = high / DIGIT + low / DIGIT**2.

    Pixel x counts w(x) = max(0, reach - |(2 x + 1) unit - (start + i step)|) for output pixel i, and 0 from `size` on.
    c = w(x) / max(1, sum of w), rounded to a multiple of DIGIT**-2, halves upwards. All of it is computed in int32.

    Args:
        axis: (5, N) unit, start, step, reach and size of each image, as in `Places.first`.
        side: Number of output pixels.
        length: Number of pixels along the axis that are gathered.

    Returns:
        high and low, each (N, side, length) float32 with whole numbers.
    """
    unit, start, step, reach, size = axis.astype(jnp.int32)[:, :, None, None]
    pixels, outputs = (jnp.arange(count, dtype=jnp.int32) for count in (length, side))
    distance = jnp.abs((2 * pixels + 1) * unit - (start + step * outputs[:, None]))
    counts = jnp.maximum(reach - distance, 0) * (pixels < size)
    total = jnp.maximum(counts.sum(axis=-1, keepdims=True, dtype=jnp.int32), 1)
    high = DIGIT * counts // total
    low = (DIGIT * (DIGIT * counts - high * total) + total // 2) // total
    return high.astype(jnp.float32), low.astype(jnp.float32)


def resize_rows(images: Array, high: Array, low: Array) -> Array:
    """Resize the rows of images, round the values to whole numbers, halves upwards, and transpose the images.

    The sums of either digit are exact in float32 for up to 32 pixels at once (`common.preprocessing.resampling.DIGIT`).

    Args:
        images: (N, 3, H, W) float32 with whole numbers.
        high: (N, side, W) first digits of the resampling coefficients.
        low: (N, side, W) second digits.

    Returns:
        (N, 3, side, H): floor(sum of c * image + 1/2), transposed so that the columns can be resized next.
    """
    high, low = (jnp.einsum("nchw,nsw->ncsh", images, digit) for digit in (high, low))
    return jnp.floor((high + jnp.floor(low / DIGIT) + DIGIT // 2) / DIGIT)


def covered(content: Array, side: int) -> Array:
    """Return where images cover their squares: (N, side, side, 1) bool, of `Places.content`, (4, N)."""
    places = jnp.arange(side, dtype=jnp.int32)
    left, top, right, bottom = content.astype(jnp.int32)[:, :, None]
    columns, rows = (left <= places) & (places < right), (top <= places) & (places < bottom)
    return (rows[:, :, None] & columns[:, None, :])[..., None]
