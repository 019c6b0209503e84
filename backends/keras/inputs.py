"""Input pipelines in TensorFlow: the shared one's batches as tensors, and tf.data with tf.image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from backends.keras.runtime import find_device
from common.data.folder import Sample
from common.data.images import open_rgb
from common.preprocessing.crops import CROP_AREA, CROP_RATIO
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


def from_shared(images: Images, labels: Labels) -> tuple[tf.Tensor, tf.Tensor]:
    """See `common.contract.backend.Backend.from_shared`: images stay (N, H, W, 3), in the main memory."""
    with tf.device("/CPU:0"):
        return tf.convert_to_tensor(images), tf.convert_to_tensor(labels)


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
        images = resize_rows(images, *weights(axis, frame.side, length))
    images = tf.where(turned, tf.linalg.matrix_transpose(images), images) if frame.turns else images
    return (tf.transpose(images, (0, 2, 3, 1)) * frame.scale - tf.constant(frame.mean)) / tf.constant(frame.std)


def weights(axis: tf.Tensor, side: int, length: int) -> tuple[tf.Tensor, tf.Tensor]:
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


def native_train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
    """See `common.contract.backend.Backend.native_train_batches`."""

    def augment(index: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        # Stateless draws depend on nothing but their seed: here the epoch's, folded with the sample's index.
        epoch_seed = tf.constant([spec.seed, epoch], tf.int64)
        for_crop, for_flip = tf.unstack(tf.random.split(tf.random.fold_in(epoch_seed, index)))
        if transform.train_crop == "random_resized_crop":
            image = random_resized_crop(image, transform.image_size, for_crop)
        elif transform.train_crop == "none":
            image = centre_crop(image, transform)
        else:
            shape = (transform.image_size, transform.image_size, 3)
            image = tf.image.stateless_random_crop(resize(image, transform), shape, for_crop)
        return tf.image.stateless_random_flip_left_right(image, for_flip) if transform.flip else image

    indices = tf.data.Dataset.range(len(samples))
    seed = 1_000_003 * spec.seed + epoch
    order = indices.shuffle(len(samples), seed=seed, reshuffle_each_iteration=False)
    return batches(order, augment, spec, transform, samples)


def native_test_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
    """See `common.contract.backend.Backend.native_test_batches`."""

    def crop(index: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        return centre_crop(image, transform)

    return batches(tf.data.Dataset.range(len(samples)), crop, spec, transform, samples)


def batches(
    order: tf.data.Dataset,
    change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    spec: ExperimentSpec,
    transform: Transform,
    samples: Sequence[Sample],
) -> tf.data.Dataset:
    """Batches of the samples whose indices are `order`, each image changed by `change(index, image)`."""

    def read(index: np.int64) -> NDArray[np.uint8]:
        return np.array(open_rgb(samples[index].path))

    def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Decoded like everywhere in this project: upright and RGB. Where operations are to be deterministic, tf.data
        # runs a stateful function one call at a time; this one reads files and has no state.
        image = tf.numpy_function(read, [index], tf.uint8, stateful=False)
        image = tf.ensure_shape(image, (None, None, 3))
        image = tf.ensure_shape(change(index, image), (transform.image_size, transform.image_size, 3))
        return normalise(image, transform), tf.gather(labels, index)

    labels = tf.constant([sample.label for sample in samples], tf.int64)
    options = tf.data.Options()
    # As many threads as the spec says, where tf.data would choose a number by itself.
    options.autotune.enabled = False
    options.threading.private_threadpool_size = max(spec.workers, 1)
    loaded = order.map(load, num_parallel_calls=spec.workers or None)
    return loaded.batch(spec.batch_size).prefetch(2).with_options(options)


def random_resized_crop(image: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """A crop of random area and aspect ratio, resized to (size, size, 3). The whole image where no crop fits."""
    begin, crop_size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=CROP_RATIO,
        area_range=CROP_AREA,
        max_attempts=10,
    )
    return tf.image.resize(tf.slice(image, begin, crop_size), (size, size))


def centre_crop(image: tf.Tensor, transform: Transform) -> tf.Tensor:
    """The square at the centre of the resized image."""
    return tf.image.resize_with_crop_or_pad(resize(image, transform), transform.image_size, transform.image_size)


def resize(image: tf.Tensor, transform: Transform) -> tf.Tensor:
    """Resize both sides, as the chapter does, or the short side. Bilinear; tf.image does not smooth before it."""
    size = transform.resize_size
    if transform.test_resize == "squash":
        return tf.image.resize(image, (size, size))
    sides = tf.shape(image)[:2]
    return tf.image.resize(image, size * sides // tf.reduce_min(sides))


def normalise(image: tf.Tensor, transform: Transform) -> tf.Tensor:
    """The channel order, scale, mean and deviation of the weights."""
    pixels = tf.cast(image, tf.float32)
    if transform.channel_order == "BGR":
        pixels = tf.reverse(pixels, axis=[-1])
    return (pixels * transform.scale - tf.constant(transform.mean)) / tf.constant(transform.std)
