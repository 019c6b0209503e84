"""Input pipelines in TensorFlow: the shared batches as tensors, and tf.data with tf.image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common.data.folder import Sample, read_file
from common.preprocessing.crops import CROP_AREA, CROP_RATIO
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


def from_shared(images: Images, labels: Labels) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a batch of the shared pipeline as tensors in main memory; images stay (N, H, W, 3)."""
    with tf.device("/CPU:0"):
        return tf.convert_to_tensor(images), tf.convert_to_tensor(labels)


def native_train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
    """Return one epoch of shuffled, augmented batches from tf.data and tf.image.

    An image's crop and flip depend on nothing but `spec.seed`, `epoch` and its index: they are stateless draws.

    Args:
        spec: The experiment.
        transform: Sizes, crop, flip and normalisation.
        samples: The training samples.
        epoch: Number of the epoch, which changes order and augmentation.

    Returns:
        Batches of images (N, H, W, 3) float32 and labels (N,) int64; the last may be smaller.
    """

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
    """Return all samples in order, cropped at the centre, from tf.data and tf.image."""

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
    """Build the tf.data pipeline that reads, changes, normalises and batches images.

    Args:
        order: Indices of the samples, in the order in which they come.
        change: Maps a sample's index and its image (H, W, 3) uint8 to (image_size, image_size, 3).
        spec: The experiment; it says the batch size and the number of threads.
        transform: Size and normalisation of the images.
        samples: The samples.

    Returns:
        Batches of images (N, image_size, image_size, 3) float32 and labels (N,) int64; the last may be smaller.
    """

    def read(index: np.int64) -> NDArray[np.uint8]:
        return np.array(read_file(samples[index], transform.presized_side))

    def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Decoded as everywhere in this project: upright and RGB. Under op determinism tf.data runs a stateful function
        # one call at a time; this one reads files and has no state.
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
    """Cut out a crop of random area and aspect ratio and resize it, or resize the whole image where no crop fits.

    Args:
        image: (H, W, 3).
        size: Side of the result in pixels.
        seed: Of a stateless draw: (2,) integers.

    Returns:
        (size, size, 3) float32. Bilinear; tf.image does not smooth before it.
    """
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
    """Return the square of `image_size` pixels at the centre of the resized image, with borders of the mean colour."""
    fill = tf.constant([mean / transform.scale for mean in transform.mean])
    if transform.channel_order == "BGR":
        fill = tf.reverse(fill, axis=[-1])
    square = (transform.image_size, transform.image_size)
    if transform.test_resize == "letterbox":
        return tf.image.resize_with_crop_or_pad(resize(image, transform) - fill, *square) + fill
    return tf.image.resize_with_crop_or_pad(resize(image, transform), *square)


def resize(image: tf.Tensor, transform: Transform) -> tf.Tensor:
    """Resize the short side, both (`squash`), or the long side (`letterbox`): bilinear, without smoothing before."""
    size = transform.resize_size
    if transform.test_resize == "squash":
        return tf.image.resize(image, (size, size))
    sides = tf.shape(image)[:2]
    if transform.test_resize == "letterbox":
        return tf.image.resize(image, tf.maximum(size * sides // tf.reduce_max(sides), 1))
    return tf.image.resize(image, size * sides // tf.reduce_min(sides))


def normalise(image: tf.Tensor, transform: Transform) -> tf.Tensor:
    """Return (pixel * scale - mean) / std as float32 (H, W, 3), in the channel order of the network's weights."""
    pixels = tf.cast(image, tf.float32)
    if transform.channel_order == "BGR":
        pixels = tf.reverse(pixels, axis=[-1])
    return (pixels * transform.scale - tf.constant(transform.mean)) / tf.constant(transform.std)
