"""Images in the device's memory, and batches that JAX makes from them there."""

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
    """See `common.contract.backend.Backend.to_device`."""
    return jax.device_put(pixels, runtime.find_device(spec))


def resident_batch(store: Array, places: Places, frame: Frame, labels: Labels) -> tuple[Array, Array]:
    """See `common.contract.backend.Backend.resident_batch`."""
    return make_images(store, places, frame), jnp.asarray(labels.astype(np.int32))


@functools.partial(jax.jit, static_argnames=("frame",), compiler_options=runtime.COMPILER_OPTIONS)
def make_images(store: Array, places: Places, frame: Frame) -> Array:
    """The images of `resident_batch`; compiled once for each frame and number of images."""
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
    return (jnp.moveaxis(images, 1, -1) * frame.scale - mean) / std


def coefficients(axis: Array, side: int, length: int) -> tuple[Array, Array]:
    """What each of `length` pixels along an axis counts in each output pixel: (N, side, length), in two digits."""
    unit, start, step, reach, size = axis.astype(jnp.int32)[:, :, None, None]
    pixels, outputs = (jnp.arange(count, dtype=jnp.int32) for count in (length, side))
    distance = jnp.abs((2 * pixels + 1) * unit - (start + step * outputs[:, None]))
    counts = jnp.maximum(reach - distance, 0) * (pixels < size)
    total = counts.sum(axis=-1, keepdims=True, dtype=jnp.int32)
    high = DIGIT * counts // total
    low = (DIGIT * (DIGIT * counts - high * total) + total // 2) // total
    return high.astype(jnp.float32), low.astype(jnp.float32)


def resize_rows(images: Array, high: Array, low: Array) -> Array:
    """Images (N, 3, H, W) with their rows resized to whole numbers, and transposed: (N, 3, side, H)."""
    high, low = (jnp.einsum("nchw,nsw->ncsh", images, digit) for digit in (high, low))
    return jnp.floor((high + jnp.floor(low / DIGIT) + DIGIT // 2) / DIGIT)
