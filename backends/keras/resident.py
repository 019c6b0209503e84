"""Images in the device's memory, and batches that Keras makes from them there."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from backends.keras.runtime import find_device
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places
from common.preprocessing.transforms import Labels
from common.spec.experiment import ExperimentSpec


def to_device(spec: ExperimentSpec, pixels: NDArray[np.uint8]) -> tf.Tensor:
    """Copy all pixels to the device, eight bytes in an int64, as TensorFlow gathers no bytes on a GPU."""
    with tf.device(find_device(spec)):
        return tf.convert_to_tensor(pixels.reshape(len(pixels), -1).view(np.int64))


def resident_batch(store: tf.Tensor, places: Places, frame: Frame, labels: Labels) -> tuple[tf.Tensor, tf.Tensor]:
    """See `common.contract.backend.Backend.resident_batch`."""
    with tf.device(store.device):
        images = compiled_images(frame)(store, places)
    with tf.device("/CPU:0"):
        return images, tf.convert_to_tensor(labels)


@functools.cache
def compiled_images(frame: Frame) -> Callable[[tf.Tensor, Places], tf.Tensor]:
    """The images of `resident_batch` as a graph, for any number of images."""
    return tf.function(functools.partial(make_images, frame), autograph=False, reduce_retracing=True)


def make_images(frame: Frame, store: tf.Tensor, places: Places) -> tf.Tensor:
    """What TensorFlow compiles. Whole numbers are int64: those of 32 bits it keeps in the main memory."""
    # Slices: TensorFlow unstacks no int64 on a GPU.
    begin, across = (places.segments[number, :, None, None] for number in range(2))
    rows, pieces = (tf.range(count, dtype=tf.int64) for count in (frame.height, frame.width // SEGMENT))
    places_in_store = tf.minimum(begin + across * rows[:, None] + pieces, tf.shape(store, tf.int64)[0] - 1)
    pixels = tf.bitcast(tf.gather(store, places_in_store), tf.uint8)
    images = tf.reshape(pixels, (-1, frame.height, frame.width, 3))
    images = tf.cast(tf.transpose(images, (0, 3, 1, 2)), tf.float32)
    turned = places.turned[:, None, None, None]
    images = tf.where(turned, tf.linalg.matrix_transpose(images), images) if frame.turns else images
    for axis, length in ((places.first, frame.width), (places.second, frame.height)):
        images = resize_rows(images, *coefficients(axis, frame.side, length))
    images = tf.where(turned, tf.linalg.matrix_transpose(images), images) if frame.turns else images
    return (tf.transpose(images, (0, 2, 3, 1)) * frame.scale - tf.constant(frame.mean)) / tf.constant(frame.std)


def coefficients(axis: tf.Tensor, side: int, length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """What each of `length` pixels along an axis counts in each output pixel: (N, side, length), in two digits."""
    unit, start, step, reach, size = (axis[number, :, None, None] for number in range(5))
    pixels, outputs = (tf.range(count, dtype=tf.int64) for count in (length, side))
    distance = tf.abs((2 * pixels + 1) * unit - (start + step * outputs[:, None]))
    counts = tf.maximum(reach - distance, 0) * tf.cast(pixels < size, tf.int64)
    total = tf.reduce_sum(counts, axis=-1, keepdims=True)
    high = DIGIT * counts // total
    low = (DIGIT * (DIGIT * counts - high * total) + total // 2) // total
    return tf.cast(high, tf.float32), tf.cast(low, tf.float32)


def resize_rows(images: tf.Tensor, high: tf.Tensor, low: tf.Tensor) -> tf.Tensor:
    """Images (N, 3, H, W) with their rows resized to whole numbers, and transposed: (N, 3, side, H)."""
    high, low = (tf.einsum("nchw,nsw->ncsh", images, digit) for digit in (high, low))
    return tf.floor((high + tf.floor(low / DIGIT) + DIGIT // 2) / DIGIT)
