"""The images of an experiment in the device's memory, and batches that TensorFlow makes from them there."""

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
    """Make a batch on the device from what `to_device` returned, by a graph that is compiled once for each frame.

    Args:
        store: The pixels of all images, (segments, 3 SEGMENT / 8) int64.
        places: Where the N images are, and where the pixels of their squares look.
        frame: Rows and pixels to gather of each image, side of the squares, and normalisation.
        labels: (N,) int64.

    Returns:
        Images (N, side, side, 3) float32 on the device of `store`, and labels (N,) in main memory. Pixels are resized
        as Pillow does, by the formula of `common.contract.backend.Backend.resident_batch`.
    """
    with tf.device(store.device):
        images = compiled_images(frame)(store, places)
    with tf.device("/CPU:0"):
        return images, tf.convert_to_tensor(labels)


@functools.cache
def compiled_images(frame: Frame) -> Callable[[tf.Tensor, Places], tf.Tensor]:
    """Return `make_images` for one frame as a graph, which is kept and serves any number of images."""
    return tf.function(functools.partial(make_images, frame), autograph=False, reduce_retracing=True)


def make_images(frame: Frame, store: tf.Tensor, places: Places) -> tf.Tensor:
    """Gather, resize and normalise the images of a batch; TensorFlow compiles this function.

    Whole numbers are int64, because TensorFlow keeps those of 32 bits in main memory.

    Args:
        frame: Rows and pixels to gather of each image, side of the squares, and normalisation.
        store: (segments, 3 SEGMENT / 8) int64.
        places: Where the N images are, and where the pixels of their squares look.

    Returns:
        (N, side, side, 3) float32.
    """
    # Slices, because TensorFlow cannot unstack int64 on a GPU.
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
    images = (tf.transpose(images, (0, 2, 3, 1)) * frame.scale - tf.constant(frame.mean)) / tf.constant(frame.std)
    return tf.where(covered(places.content, frame.side), images, 0.0) if frame.padded else images


def coefficients(axis: tf.Tensor, side: int, length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the resampling coefficients along one axis, each as two whole digits.

        distance[i, x] = |(2 x + 1) unit - (start + i step)|
        w[i, x] = max(0, reach - distance[i, x]), and 0 for x >= size
        DIGIT high[i, x] + low[i, x] = w[i, x] / max(1, sum_x w[i, x]) * DIGIT^2, rounded half upwards

    Args:
        axis: (5, N) int64: unit, start, step, reach and size of each image, as in `Places.first`.
        side: Number of output pixels i.
        length: Number of input pixels x.

    Returns:
        high and low, (N, side, length) float32.
    """
    unit, start, step, reach, size = (axis[number, :, None, None] for number in range(5))
    pixels, outputs = (tf.range(count, dtype=tf.int64) for count in (length, side))
    distance = tf.abs((2 * pixels + 1) * unit - (start + step * outputs[:, None]))
    counts = tf.maximum(reach - distance, 0) * tf.cast(pixels < size, tf.int64)
    total = tf.maximum(tf.reduce_sum(counts, axis=-1, keepdims=True), 1)
    high = DIGIT * counts // total
    low = (DIGIT * (DIGIT * counts - high * total) + total // 2) // total
    return tf.cast(high, tf.float32), tf.cast(low, tf.float32)


def resize_rows(images: tf.Tensor, high: tf.Tensor, low: tf.Tensor) -> tf.Tensor:
    """Resize the rows of images to whole numbers, and transpose the images.

        output = (sum_x (DIGIT high + low) pixel) / DIGIT^2, rounded half upwards

    Args:
        images: (N, 3, H, W) float32, whole numbers.
        high: (N, side, W) float32, the first digit of the coefficients.
        low: (N, side, W) float32, the second.

    Returns:
        (N, 3, side, H) float32: transposed, so that a second call resizes the other axis.
    """
    high, low = (tf.einsum("nchw,nsw->ncsh", images, digit) for digit in (high, low))
    return tf.floor((high + tf.floor(low / DIGIT) + DIGIT // 2) / DIGIT)


def covered(content: tf.Tensor, side: int) -> tf.Tensor:
    """Return where images cover their squares: (N, side, side, 1) bool, of `Places.content`, (4, N) int64."""
    places = tf.range(side, dtype=tf.int64)
    left, top, right, bottom = (content[number, :, None] for number in range(4))
    columns, rows = (left <= places) & (places < right), (top <= places) & (places < bottom)
    return (rows[:, :, None] & columns[:, None, :])[..., None]
