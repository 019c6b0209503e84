"""The networks as tables of names and shapes, in torchvision's naming and layout; no framework is needed to read them.

Convolutions are (out, in, height, width), dense layers (out, in). BatchNorm has weight (gamma), bias (beta),
running_mean and running_var.

Source: He et al. 2015, "Deep Residual Learning for Image Recognition". `resnet50` has its stride in the 3x3 convolution
as in torchvision ("v1.5"). `resnet50_keras` has it in the first 1x1, and its convolutions have biases. `resnet18_v2` is
the pre-activation network of He et al. 2016 as in Gluon's model zoo.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]

SOURCE_CLASSES = 1000
BATCH_NORM_EPSILON = 1e-5
_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet18_v2": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "resnet50_keras": (3, 4, 6, 3),
}
ARCHITECTURES = tuple(_BLOCKS)
HEAD = ("fc.weight", "fc.bias")
_CHANNELS = (64, 128, 256, 512)


def architecture(backend: str, model: str) -> str:
    """Return the network that `model` means in `backend`, one of ARCHITECTURES.

    >>> architecture("torch", "resnet50"), architecture("keras", "resnet50")
    ('resnet50', 'resnet50_keras')

    Args:
        backend: Name of the backend.
        model: The spec's `model`.

    Returns:
        The name of the architecture: `model` itself but for Keras' ResNet-50, whose strides and biases differ.
    """
    return "resnet50_keras" if (backend, model) == ("keras", "resnet50") else model


def features(architecture: str) -> int:
    """Return the length of the feature vector that the head sees."""
    return 512 if architecture.startswith("resnet18") else 2048


def shapes(architecture: str, classes: int = SOURCE_CLASSES) -> Shapes:
    """List the shapes of every parameter and running statistic, in the order of the forward pass.

    A KeyError says that the architecture is unknown.

    >>> list(shapes("resnet18", classes=2).items())[-2:]
    [('fc.weight', (2, 512)), ('fc.bias', (2,))]

    Args:
        architecture: One of ARCHITECTURES.
        classes: Number of rows of the head.

    Returns:
        Name -> shape.
    """
    blocks = _BLOCKS[architecture]
    body = {
        "resnet18": _basic, "resnet18_v2": _pre_activation, "resnet50": _bottleneck, "resnet50_keras": _bottleneck,
    }[architecture]  # fmt: skip
    table: Shapes = {}
    if architecture == "resnet18_v2":
        table.update(_norm("bn0", 3))
    table["conv1.weight"] = (64, 3, 7, 7)
    table.update(_norm("bn1", 64))
    inputs = 64
    for stage, (count, channels) in enumerate(zip(blocks, _CHANNELS, strict=True), start=1):
        for block in range(count):
            first_stride = 2 if stage > 1 and block == 0 else 1
            for name, shape in body(inputs, channels, first_stride):
                table[f"layer{stage}.{block}.{name}"] = shape
            inputs = channels * (1 if architecture.startswith("resnet18") else 4)
    if architecture == "resnet18_v2":
        table.update(_norm("bn5", 512))
    if architecture == "resnet50_keras":
        table = dict(_with_convolution_biases(table))
    table["fc.weight"] = (classes, inputs)
    table["fc.bias"] = (classes,)
    return table


def forward_flops(architecture: str, image_size: int, classes: int = 2) -> int:
    """Count the floating-point operations of one image's forward pass.

    There are two to a multiply-add, and those of convolutions and head count. A training step takes three times as
    many, as the backward pass forms the gradients of the inputs and those of the weights.

    >>> round(forward_flops("resnet18", image_size=224, classes=1000) / 1e9, 2)
    3.63

    Args:
        architecture: One of ARCHITECTURES.
        image_size: Side of the square in pixels.
        classes: Number of rows of the head.

    Returns:
        The number of operations: over all convolutions 2 * map side**2 * out * in * height * width, and 2 * out * in
        for the head.
    """
    side = before = _halved(_halved(image_size))
    total = 0
    for name, shape in shapes(architecture, classes).items():
        layer = name.removesuffix(".weight")
        if name == "fc.weight":
            total += 2 * shape[0] * shape[1]
        elif len(shape) == 4:
            if layer == "conv1":
                outputs = _halved(image_size)
            else:
                # A block halves its maps in its first convolution, but torchvision's ResNet-50 in its second.
                halves = layer[5] != "1" and layer.split(".")[1] == "0"
                late = architecture == "resnet50" and layer.endswith("conv1")
                if halves and layer.endswith(".0.conv1"):
                    before, side = side, _halved(side)
                outputs = before if halves and late else side
            total += 2 * outputs * outputs * shape[0] * shape[1] * shape[2] * shape[3]
    return total


def is_statistic(name: str) -> bool:
    """Return whether a name is that of a BatchNorm running statistic rather than of a trained parameter."""
    return name.endswith(("running_mean", "running_var"))


def initial_head(architecture: str, classes: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw a new head: Xavier-uniform weight within sqrt(6 / (features + classes)), and zero bias.

    Source: Glorot and Bengio 2010.

    Args:
        architecture: One of ARCHITECTURES.
        classes: Number of rows of the head.
        seed: Seed of the experiment.

    Returns:
        `fc.weight` (classes, features) and `fc.bias` (classes,), float32.
    """
    generator = np.random.default_rng([seed, 1])
    count = features(architecture)
    limit = np.sqrt(6 / (count + classes))
    weight = (2 * generator.random((classes, count)) - 1) * limit
    return {"fc.weight": weight.astype(np.float32), "fc.bias": np.zeros(classes, np.float32)}


def initial_network(architecture: str, classes: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw the values of a network to train from scratch, the same in every backend.

    Convolutions are normal with variance 2 / (out * height * width) (He et al. 2015, fan-out, as torchvision does).
    BatchNorm starts at gamma 1, beta 0, mean 0 and variance 1, biases at zero, and the head is `initial_head`.

    Args:
        architecture: One of ARCHITECTURES.
        classes: Number of rows of the head.
        seed: Seed of the experiment.

    Returns:
        Name -> array of every parameter and running statistic, float32.
    """
    generator = np.random.default_rng([seed, 2])
    values: dict[str, NDArray[np.float32]] = {}
    for name, shape in shapes(architecture, classes).items():
        if len(shape) == 4:
            deviation = np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
            values[name] = (generator.standard_normal(shape) * deviation).astype(np.float32)
        elif name.endswith(("running_var", ".weight")):
            values[name] = np.ones(shape, np.float32)
        else:
            values[name] = np.zeros(shape, np.float32)
    values.update(initial_head(architecture, classes, seed))
    return values


def _halved(side: int) -> int:
    return (side + 1) // 2


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def _basic(inputs: int, channels: int, stride: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "conv1.weight", (channels, inputs, 3, 3)
    yield from _norm("bn1", channels).items()
    yield "conv2.weight", (channels, channels, 3, 3)
    yield from _norm("bn2", channels).items()
    if stride != 1 or inputs != channels:
        yield "downsample.0.weight", (channels, inputs, 1, 1)
        yield from _norm("downsample.1", channels).items()


def _pre_activation(inputs: int, channels: int, stride: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm("bn1", inputs).items()
    yield "conv1.weight", (channels, inputs, 3, 3)
    yield from _norm("bn2", channels).items()
    yield "conv2.weight", (channels, channels, 3, 3)
    if stride != 1 or inputs != channels:
        yield "downsample.0.weight", (channels, inputs, 1, 1)


def _bottleneck(inputs: int, channels: int, stride: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "conv1.weight", (channels, inputs, 1, 1)
    yield from _norm("bn1", channels).items()
    yield "conv2.weight", (channels, channels, 3, 3)
    yield from _norm("bn2", channels).items()
    yield "conv3.weight", (4 * channels, channels, 1, 1)
    yield from _norm("bn3", 4 * channels).items()
    if stride != 1 or inputs != 4 * channels:
        yield "downsample.0.weight", (4 * channels, inputs, 1, 1)
        yield from _norm("downsample.1", 4 * channels).items()


def _with_convolution_biases(table: Shapes) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in table.items():
        yield name, shape
        if len(shape) == 4:
            yield name.removesuffix("weight") + "bias", shape[:1]
