"""The JAX tab of the chapter "Fine-Tuning" as it is written, to be measured against: `scripts.bench`.

It has a process of its own and imports nothing of this backend, so that JAX runs with its own defaults: compiled
steps that keep their inputs, and numbers that are read back at every step. Source: Dive into Deep Learning, the
chapter; the weights are random, which costs the same. One thing differs: the chapter reads images with TensorFlow,
which is not in this environment; here Grain does, with its own number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import flaxmodels
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEARNING_RATE, HEAD_MULTIPLE, WEIGHT_DECAY = 1e-4, 10, 1e-3

Batches = Iterable[tuple[Any, Any]]


class Module(nn.Module):
    """flaxmodels' last map, averaged, under a new head; BatchNorm keeps the source's statistics in training too."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        backbone = flaxmodels.ResNet18(output="activations", pretrained=None, normalize=False)
        features = jnp.mean(backbone(images, train=False)["block4_1"], axis=(1, 2))
        head = nn.Dense(self.classes, kernel_init=nn.initializers.glorot_uniform(), name="classifier")
        return head(features)


@dataclass
class Network:
    """The module and its numbers."""

    module: Module
    params: Any
    batch_stats: Any
    frozen: bool


def make_network(image_size: int, classes: int, frozen: bool) -> Network:
    """The network under its new head; `image_size` in pixels.

    frozen: whether the backbone does not train, as in the chapter's exercise.
    """
    module = Module(classes)
    variables = module.init(jax.random.PRNGKey(1), jnp.zeros((1, image_size, image_size, 3)))
    return Network(module, variables["params"], variables["batch_stats"], frozen)


def make_optimizer(network: Network) -> Any:
    """The optimizer's state, with a ten times larger learning rate for the head, and the compiled steps."""
    labels = {layer: "head" if layer == "classifier" else "backbone" for layer in network.params}
    rates = {"head": LEARNING_RATE * HEAD_MULTIPLE, "backbone": LEARNING_RATE}
    decayed = {
        name: optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(rate)) for name, rate in rates.items()
    }
    if network.frozen:
        decayed["backbone"] = optax.set_to_zero()
    optimizer = optax.multi_transform(decayed, labels)

    def loss_of(params: Any, batch_stats: Any, images: jax.Array, labels: jax.Array) -> Any:
        logits = network.module.apply({"params": params, "batch_stats": batch_stats}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    @jax.jit
    def train_step(params: Any, batch_stats: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        differentiated = jax.value_and_grad(loss_of, has_aux=True)
        (loss, logits), gradient = differentiated(params, batch_stats, images, labels)
        changes, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, changes), state, loss, (logits.argmax(axis=-1) == labels).mean()

    return {"step": train_step, "state": optimizer.init(network.params)}


def train_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """The tab's own pipeline over `folder`/train; each iteration is an epoch."""
    dataset = grain.MapDataset.source(files(folder / "train")).seed(0).shuffle()
    return batches(dataset.random_map(Augment(image_size)), batch_size)


def test_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """The tab's own pipeline over `folder`/test."""
    return batches(grain.MapDataset.source(files(folder / "test")).map(Crop(image_size)), batch_size)


def train_epoch(network: Network, optimizer: Any, batches: Batches) -> int:
    """One epoch; the number of images."""
    loss_sum, accuracy_sum, count = 0.0, 0.0, 0
    for images, labels in batches:
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        network.params, optimizer["state"], loss, accuracy = optimizer["step"](
            network.params, network.batch_stats, optimizer["state"], images, labels
        )
        loss_sum, accuracy_sum, count = loss_sum + float(loss), accuracy_sum + float(accuracy), count + len(labels)
    return count


def evaluate(network: Network, batches: Batches) -> int:
    """The accuracy over the test images; the number of images."""
    accuracy_sum, count = 0.0, 0
    for images, labels in batches:
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        accuracy_sum += float(accuracy_of(network.module, network.params, network.batch_stats, images, labels))
        count += len(labels)
    return count


@jax.jit(static_argnums=0)
def accuracy_of(module: Module, params: Any, batch_stats: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The fraction of correct answers in a batch."""
    logits = module.apply({"params": params, "batch_stats": batch_stats}, images)
    return (logits.argmax(axis=-1) == labels).mean()


def files(folder: Path) -> list[tuple[Path, int]]:
    """The images of class folders with their labels."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return [(path, label) for label, name in enumerate(classes) for path in sorted(name.iterdir())]


def batches(dataset: grain.MapDataset, batch_size: int) -> Batches:
    """Batches of (image, label); the incomplete last one is dropped."""
    return dataset.to_iter_dataset().batch(batch_size, drop_remainder=True)


def read(path: Path, image_size: int) -> Image.Image:
    """The image with both sides resized."""
    resized = round(image_size * 256 / 224)
    return Image.open(path).convert("RGB").resize((resized, resized), Image.Resampling.BILINEAR)


def normalise(image: Image.Image) -> np.ndarray:
    """An image as normalised float32 (H, W, 3)."""
    return (np.asarray(image, np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


@dataclass
class Augment(grain.transforms.RandomMap):
    """A random crop, mirrored or not."""

    image_size: int

    def random_map(self, element: tuple[Path, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
        image, size = read(element[0], self.image_size), self.image_size
        left, top = (int(place) for place in rng.integers(image.width - size + 1, size=2))
        image = image.crop((left, top, left + size, top + size))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return normalise(image), element[1]


@dataclass
class Crop(grain.transforms.Map):
    """The crop at the centre."""

    image_size: int

    def map(self, element: tuple[Path, int]) -> tuple[np.ndarray, int]:
        image, size = read(element[0], self.image_size), self.image_size
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return normalise(image.crop((left, top, left + size, top + size))), element[1]
