"""Run the JAX tab of the chapter "Fine-Tuning" as it is written, so that `scripts.bench` can compare with it.

The file runs in a process of its own and imports nothing of this backend, so that JAX keeps its own defaults: compiled
steps that keep their inputs, and numbers that are read back at every step. Source: Dive into Deep Learning, chapter
"Fine-Tuning". There are two differences. The weights are random, which costs the same time. The chapter reads images
with TensorFlow, which is not in this environment; here Grain reads them, with its own number of threads.
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
    """Put a new head on the average of flaxmodels' last feature map.

    BatchNorm uses the source's running statistics in training too.
    """

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits, (N, classes), of images (N, H, W, 3)."""
        backbone = flaxmodels.ResNet18(output="activations", pretrained=None, normalize=False)
        features = jnp.mean(backbone(images, train=False)["block4_1"], axis=(1, 2))
        head = nn.Dense(self.classes, kernel_init=nn.initializers.glorot_uniform(), name="classifier")
        return head(features)


@dataclass
class Network:
    """Hold a Flax module together with its parameters and running statistics."""

    module: Module
    params: Any
    batch_stats: Any
    frozen: bool
    """Whether the backbone is frozen, as in the chapter's exercise."""


def make_network(image_size: int, classes: int, frozen: bool) -> Network:
    """Build the network under a new head, with random weights.

    Args:
        image_size: Side of the square images in pixels.
        classes: Number of outputs of the head.
        frozen: Whether the backbone is frozen, as in the chapter's exercise.

    Returns:
        The network.
    """
    module = Module(classes)
    variables = module.init(jax.random.PRNGKey(1), jnp.zeros((1, image_size, image_size, 3)))
    return Network(module, variables["params"], variables["batch_stats"], frozen)


def make_optimizer(network: Network) -> Any:
    """Return a dictionary of the compiled training step ("step") and the optimizer's state ("state").

    Optax's SGD with weight decay trains the backbone at LEARNING_RATE and the head at HEAD_MULTIPLE (10) times that.
    """
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
    """Return the tab's own pipeline over the images in `folder`/train; each iteration over it is an epoch."""
    dataset = grain.MapDataset.source(files(folder / "train")).seed(0).shuffle()
    return batches(dataset.random_map(Augment(image_size)), batch_size)


def test_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """Return the tab's own pipeline over the images in `folder`/test."""
    return batches(grain.MapDataset.source(files(folder / "test")).map(Crop(image_size)), batch_size)


def train_epoch(network: Network, optimizer: Any, batches: Batches) -> int:
    """Train for one epoch and return the number of images seen."""
    loss_sum, accuracy_sum, count = 0.0, 0.0, 0
    for images, labels in batches:
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        network.params, optimizer["state"], loss, accuracy = optimizer["step"](
            network.params, network.batch_stats, optimizer["state"], images, labels
        )
        loss_sum, accuracy_sum, count = loss_sum + float(loss), accuracy_sum + float(accuracy), count + len(labels)
    return count


def evaluate(network: Network, batches: Batches) -> int:
    """Compute the accuracy over the test images and return their number."""
    accuracy_sum, count = 0.0, 0
    for images, labels in batches:
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        accuracy_sum += float(accuracy_of(network.module, network.params, network.batch_stats, images, labels))
        count += len(labels)
    return count


@jax.jit(static_argnums=0)
def accuracy_of(module: Module, params: Any, batch_stats: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the fraction of correct top-1 answers in a batch."""
    logits = module.apply({"params": params, "batch_stats": batch_stats}, images)
    return (logits.argmax(axis=-1) == labels).mean()


def files(folder: Path) -> list[tuple[Path, int]]:
    """Return the path and label of each image in the class folders of `folder`, sorted by name."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return [(path, label) for label, name in enumerate(classes) for path in sorted(name.iterdir())]


def batches(dataset: grain.MapDataset, batch_size: int) -> Batches:
    """Return batches of images and labels; the incomplete last batch is dropped."""
    return dataset.to_iter_dataset().batch(batch_size, drop_remainder=True)


def read(path: Path, image_size: int) -> Image.Image:
    """Read an image and resize both of its sides to 256/224 of `image_size`."""
    resized = round(image_size * 256 / 224)
    return Image.open(path).convert("RGB").resize((resized, resized), Image.Resampling.BILINEAR)


def normalise(image: Image.Image) -> np.ndarray:
    """Convert an image to normalised float32 (H, W, 3): (value / 255 - MEAN) / STD."""
    return (np.asarray(image, np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


@dataclass
class Augment(grain.transforms.RandomMap):
    """Cut a random square out of a training image and mirror it with probability 0.5."""

    image_size: int

    def random_map(self, element: tuple[Path, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Return the augmented image, (H, W, 3) float32, and the label of a path with its label."""
        image, size = read(element[0], self.image_size), self.image_size
        left, top = (int(place) for place in rng.integers(image.width - size + 1, size=2))
        image = image.crop((left, top, left + size, top + size))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return normalise(image), element[1]


@dataclass
class Crop(grain.transforms.Map):
    """Cut the square at the centre out of a test image."""

    image_size: int

    def map(self, element: tuple[Path, int]) -> tuple[np.ndarray, int]:
        """Return the cropped image, (H, W, 3) float32, and the label of a path with its label."""
        image, size = read(element[0], self.image_size), self.image_size
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return normalise(image.crop((left, top, left + size, top + size))), element[1]
