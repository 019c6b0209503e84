"""The TensorFlow tab of the chapter "Fine-Tuning" as the book has it: the baseline that `scripts.bench` measures.

It runs in a process of its own and imports nothing of this backend, so that TensorFlow keeps its own defaults:
float32, its number of threads, tf.data tuned by itself, and a loss that is read back at every step. Source: Dive into
Deep Learning, the chapter; the weights are random, which costs the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import tensorflow as tf

LEARNING_RATE, HEAD_MULTIPLE, MOMENTUM, WEIGHT_DECAY = 5e-5, 10, 0.9, 1e-3

Batches = Iterable[tuple[tf.Tensor, tf.Tensor]]


def make_network(image_size: int, classes: int, frozen: bool) -> keras.Model:
    """Build the ResNet-50 of keras.applications with a new head and random weights.

    Args:
        image_size: Side of the images in pixels.
        classes: Outputs of the new head.
        frozen: Whether the backbone does not train, as in the chapter's exercise.

    Returns:
        The network, a Sequential of the backbone and the head `classifier`.
    """
    backbone = keras.applications.ResNet50(
        weights=None, include_top=False, pooling="avg", input_shape=(image_size, image_size, 3)
    )
    backbone.trainable = not frozen
    return keras.Sequential([backbone, keras.layers.Dense(classes, name="classifier")])


def make_optimizer(network: keras.Model) -> Any:
    """Make two optimizers, the head's with a ten times larger learning rate, and compile the step that uses them.

    Args:
        network: The network of `make_network`.

    Returns:
        The compiled step: a function from a batch's images and labels to its mean loss.
    """
    options = {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    for_head = keras.optimizers.SGD(LEARNING_RATE * HEAD_MULTIPLE, **options)
    for_backbone = keras.optimizers.SGD(LEARNING_RATE, **options)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    in_head = {id(variable) for variable in network.layers[-1].trainable_variables}

    @tf.function
    def train_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = network(images, training=True)
            loss = loss_of(labels, logits)
        variables = network.trainable_variables
        pairs = list(zip(tape.gradient(loss, variables), variables, strict=True))
        for_head.apply_gradients([pair for pair in pairs if id(pair[1]) in in_head])
        # A frozen backbone has no gradients, and Keras refuses an empty list.
        if len(pairs) > len(in_head):
            for_backbone.apply_gradients([pair for pair in pairs if id(pair[1]) not in in_head])
        accuracy.update_state(labels, logits)
        return loss

    return train_step


def train_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """Return the tab's own training pipeline over `folder`/train; each iteration is an epoch."""

    def augment(image: tf.Tensor) -> tf.Tensor:
        return tf.image.random_flip_left_right(tf.image.random_crop(image, (image_size, image_size, 3)))

    return batches(folder / "train", augment, image_size, batch_size, shuffle=True)


def test_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """Return the tab's own test pipeline over `folder`/test."""

    def crop(image: tf.Tensor) -> tf.Tensor:
        return tf.image.resize_with_crop_or_pad(image, image_size, image_size)

    return batches(folder / "test", crop, image_size, batch_size, shuffle=False)


def train_epoch(network: keras.Model, optimizer: Any, batches: Batches) -> int:
    """Train for one epoch with the step of `make_optimizer` and return the number of images."""
    loss, count = 0.0, 0
    for images, labels in batches:
        loss += float(optimizer(images, labels))
        count += len(labels)
    return count


def evaluate(network: keras.Model, batches: Batches) -> int:
    """Compute the accuracy over the test images and return the number of images."""
    accuracy, count = keras.metrics.SparseCategoricalAccuracy(), 0
    if not hasattr(network, "test_step_of_tab"):
        network.test_step_of_tab = tf.function(lambda images: network(images, training=False))
    for images, labels in batches:
        accuracy.update_state(labels, network.test_step_of_tab(images))
        count += len(labels)
    accuracy.result()
    return count


def batches(
    folder: Path, change: Callable[[tf.Tensor], tf.Tensor], image_size: int, batch_size: int, shuffle: bool
) -> Batches:
    """Read class folders as batches: both sides resized, changed, and normalised as for Keras' ResNet-50.

    Args:
        folder: Has a folder for each class.
        change: What to do with an image between resizing and normalising it.
        image_size: Side in pixels after `change`; images are resized to 256 / 224 of it.
        batch_size: Images in a batch; an incomplete last batch is dropped.
        shuffle: Whether the order is random.

    Returns:
        A tf.data data set of images (batch_size, image_size, image_size, 3) float32 and labels (batch_size,).
    """
    resized = round(image_size * 256 / 224)

    def prepare(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return keras.applications.resnet50.preprocess_input(tf.cast(change(image), tf.float32)), label

    images = keras.utils.image_dataset_from_directory(
        folder, image_size=(resized, resized), batch_size=None, shuffle=shuffle, verbose=False
    )
    images = images.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return images.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
