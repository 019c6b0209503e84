"""Run the MXNet tab of the chapter "Fine-Tuning" as it is written, so that `scripts.bench` can compare with it.

The file runs in a process of its own and imports nothing of this backend, so that MXNet keeps its own defaults: its
number of threads, `hybridize()` without a static memory plan, a DataLoader without workers, and numbers that are read
back at every step. Source: Dive into Deep Learning, chapter "Fine-Tuning" and its helper `train_ch13`. The weights are
random, which costs the same time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mxnet as mx
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon.data.vision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEARNING_RATE, HEAD_MULTIPLE, WEIGHT_DECAY = 7.8125e-5, 10, 1e-3

npx.set_np()
DEVICE = npx.gpu() if mx.runtime.Features().is_enabled("CUDA") and npx.num_gpus() else npx.cpu()

Batches = Iterable[tuple[np.ndarray, np.ndarray]]


def make_network(image_size: int, classes: int, frozen: bool) -> gluon.HybridBlock:
    """Build the network under a new head, with random weights.

    Args:
        image_size: Side of the square images in pixels.
        classes: Number of outputs of the head.
        frozen: Whether the backbone is frozen, as in the chapter's exercise.

    Returns:
        The network, whose head has the learning-rate multiple HEAD_MULTIPLE (10).
    """
    network = gluon.model_zoo.vision.resnet18_v2(classes=classes)
    network.initialize(init.Xavier())
    for parameter in network.output.collect_params().values():
        parameter.lr_mult = HEAD_MULTIPLE
    if frozen:
        network.features.collect_params().setattr("grad_req", "null")
    network.collect_params().reset_ctx(DEVICE)
    network.hybridize()
    return network


def make_optimizer(network: gluon.HybridBlock) -> Any:
    """Return SGD with weight decay; the head learns at the multiple that `make_network` has set."""
    return gluon.Trainer(network.collect_params(), "sgd", {"learning_rate": LEARNING_RATE, "wd": WEIGHT_DECAY})


def train_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """Return the tab's own pipeline over the images in `folder`/train; each iteration over it is an epoch."""
    steps = [transforms.RandomResizedCrop(image_size), transforms.RandomFlipLeftRight(), *to_tensor()]
    dataset = gluon.data.vision.ImageFolderDataset(str(folder / "train"))
    return gluon.data.DataLoader(dataset.transform_first(transforms.Compose(steps)), batch_size, shuffle=True)


def test_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """Return the tab's own pipeline over the images in `folder`/test."""
    steps = [transforms.Resize(round(image_size * 256 / 224)), transforms.CenterCrop(image_size), *to_tensor()]
    dataset = gluon.data.vision.ImageFolderDataset(str(folder / "test"))
    return gluon.data.DataLoader(dataset.transform_first(transforms.Compose(steps)), batch_size)


def train_epoch(network: gluon.HybridBlock, optimizer: Any, batches: Batches) -> int:
    """Train for one epoch and return the number of images seen."""
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    totals = [0.0, 0.0, 0.0]
    for images, labels in batches:
        (images,), (labels,) = (gluon.utils.split_and_load(part, [DEVICE]) for part in (images, labels))
        with autograd.record():
            logits = network(images)
            losses = loss_of(logits, labels)
        losses.backward()
        # As in the chapter's helper, the trainer does not divide by the batch size.
        optimizer.step(1)
        correct = (logits.argmax(axis=1).astype(labels.dtype) == labels).sum()
        batch = (float(losses.sum()), float(correct), float(labels.shape[0]))
        totals = [total + value for total, value in zip(totals, batch, strict=True)]
    return int(totals[2])


def evaluate(network: gluon.HybridBlock, batches: Batches) -> int:
    """Compute the accuracy over the test images as the book's helper does, and return their number."""
    correct = count = 0.0
    for images, labels in batches:
        (images,), (labels,) = (gluon.utils.split_and_load(part, [DEVICE]) for part in (images, labels))
        correct += float((network(images).argmax(axis=1).astype(labels.dtype) == labels).sum())
        count += labels.shape[0]
    return int(count)


def to_tensor() -> list[gluon.Block]:
    """Return the transforms from an 8-bit (H, W, 3) image to normalised float32 (3, H, W)."""
    return [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
