"""The PyTorch tab of the chapter "Fine-Tuning" as the book has it: the baseline that `scripts.bench` measures.

It runs in a process of its own and imports nothing of this backend, so that PyTorch keeps its own defaults: float32,
NCHW, a DataLoader without workers, and numbers that are read back at every step. Source: Dive into Deep Learning,
the chapter and its helper `train_ch13`; the weights are random, which costs the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEARNING_RATE, HEAD_MULTIPLE, WEIGHT_DECAY = 5e-5, 10, 1e-3
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Batches = Iterable[tuple[Tensor, Tensor]]


def make_network(image_size: int, classes: int, frozen: bool) -> nn.Module:
    """Build torchvision's ResNet-18 with a new head and random weights, on the GPU if there is one.

    Args:
        image_size: Side of the images in pixels; the network takes any, so it is not used.
        classes: Outputs of the new head.
        frozen: Whether the backbone does not train, as in the chapter's exercise.

    Returns:
        The network; on a GPU inside `nn.DataParallel`.
    """
    network = torchvision.models.resnet18()
    # Before the head is replaced: the chapter freezes afterwards, the head too, and the backward pass fails.
    network.requires_grad_(not frozen)
    network.fc = nn.Linear(network.fc.in_features, classes)
    nn.init.xavier_uniform_(network.fc.weight)
    return nn.DataParallel(network).to(DEVICE) if DEVICE.type == "cuda" else network


def make_optimizer(network: nn.Module) -> Any:
    """Make one SGD with two parameter groups: the backbone, and the head at ten times its learning rate."""
    head = list(getattr(network, "module", network).fc.parameters())
    known = {id(parameter) for parameter in head}
    backbone = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups = [{"params": backbone}, {"params": head, "lr": LEARNING_RATE * HEAD_MULTIPLE}]
    return torch.optim.SGD(groups, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)


def train_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """Return the tab's own training pipeline over `folder`/train; each iteration is an epoch in a new order."""
    steps = [v2.RandomResizedCrop(image_size), v2.RandomHorizontalFlip(), *to_tensor()]
    dataset = torchvision.datasets.ImageFolder(str(folder / "train"), transform=v2.Compose(steps))
    return DataLoader(dataset, batch_size=batch_size, shuffle=True)


def test_batches(folder: Path, image_size: int, batch_size: int) -> Batches:
    """Return the tab's own test pipeline over `folder`/test."""
    resized = round(image_size * 256 / 224)
    steps = [v2.Resize([resized, resized]), v2.CenterCrop(image_size), *to_tensor()]
    dataset = torchvision.datasets.ImageFolder(str(folder / "test"), transform=v2.Compose(steps))
    return DataLoader(dataset, batch_size=batch_size)


def train_epoch(network: nn.Module, optimizer: Any, batches: Batches) -> int:
    """Train for one epoch and return the number of images."""
    loss_of = nn.CrossEntropyLoss(reduction="none")
    totals = [0.0, 0.0, 0.0]
    for images, labels in batches:
        images, labels = images.to(DEVICE), labels.to(DEVICE)
        network.train()
        optimizer.zero_grad()
        logits = network(images)
        losses = loss_of(logits, labels)
        losses.sum().backward()
        optimizer.step()
        batch = (float(losses.detach().sum()), float((logits.argmax(dim=1) == labels).sum()), float(len(labels)))
        totals = [total + value for total, value in zip(totals, batch, strict=True)]
    return int(totals[2])


def evaluate(network: nn.Module, batches: Batches) -> int:
    """Count the correct answers over the test images as the book's helper does, and return the number of images."""
    network.eval()
    correct = count = 0.0
    with torch.no_grad():
        for images, labels in batches:
            images, labels = images.to(DEVICE), labels.to(DEVICE)
            correct += float((network(images).argmax(dim=1) == labels).sum())
            count += len(labels)
    return int(count)


def to_tensor() -> list[v2.Transform]:
    """Return the steps that turn a Pillow image into normalised float32 (3, H, W)."""
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
