"""Low-rank adapters beside the convolutions of a network: LoRA, in terms of no framework.

A convolution of weight W (out, in, height, width) computes with

    W + scale * B A,    scale = alpha / rank,

instead. A (rank, in, height, width) and B (out, rank) are trained, W is not, and the product runs over the rank. A is a
convolution to `rank` channels and B one of 1 x 1 after it, so both have layouts that every framework knows. B starts at
zero, so the network is at first the one that it adapts.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; Keras' `enable_lora` is the same
definition for convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.network import resnet

# Names: `layer1.0.conv1.lora_a` beside `layer1.0.conv1.weight`.
SUFFIXES = (".lora_a", ".lora_b")
_INITIAL = 6


def is_adapter(name: str) -> bool:
    """Return whether a name is that of an adapter's A or B.

    >>> is_adapter("layer1.0.conv1.lora_a"), is_adapter("layer1.0.conv1.weight")
    (True, False)

    Args:
        name: Name of a parameter.

    Returns:
        Whether it ends in one of SUFFIXES.
    """
    return name.endswith(SUFFIXES)


def shapes(architecture: str, rank: int) -> resnet.Shapes:
    """List the shapes of A and B of every convolution, in the order of the forward pass.

    >>> list(shapes("resnet18", rank=4).items())[:2]
    [('conv1.lora_a', (4, 3, 7, 7)), ('conv1.lora_b', (64, 4))]

    Args:
        architecture: One of `resnet.ARCHITECTURES`.
        rank: Rank of every adapter.

    Returns:
        Name -> shape: A is (rank, in, height, width), B is (out, rank).
    """
    table: resnet.Shapes = {}
    for name, shape in resnet.shapes(architecture).items():
        if len(shape) == 4:
            layer = name.removesuffix(".weight")
            table[f"{layer}.lora_a"] = (rank, *shape[1:])
            table[f"{layer}.lora_b"] = (shape[0], rank)
    return table


def initial(architecture: str, rank: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw the adapters before training, the same in every backend.

    A is uniform within 1 / sqrt(in * height * width), which is the Kaiming-uniform of the paper's code; B is zero.

    Args:
        architecture: One of `resnet.ARCHITECTURES`.
        rank: Rank of every adapter.
        seed: Seed of the experiment.

    Returns:
        Name -> A or B, float32.
    """
    generator = np.random.default_rng([seed, _INITIAL])
    values: dict[str, NDArray[np.float32]] = {}
    for name, shape in shapes(architecture, rank).items():
        if name.endswith(".lora_a"):
            limit = 1 / np.sqrt(np.prod(shape[1:]))
            values[name] = ((2 * generator.random(shape) - 1) * limit).astype(np.float32)
        else:
            values[name] = np.zeros(shape, np.float32)
    return values


def merge(arrays: Mapping[str, NDArray[Any]], scale: float) -> dict[str, NDArray[Any]]:
    """Merge a network's adapters into its convolutions: the weight W becomes W + scale * B A.

    A weight that has no adapter stays as it is.

    Args:
        arrays: Name -> array of the network, with its adapters.
        scale: alpha / rank.

    Returns:
        Name -> array, without adapters.
    """
    merged = {name: array for name, array in arrays.items() if not is_adapter(name)}
    for name in arrays:
        if name.endswith(".lora_a"):
            layer = name.removesuffix(".lora_a")
            product = np.tensordot(arrays[f"{layer}.lora_b"], arrays[name], axes=1)
            weight = arrays[f"{layer}.weight"]
            merged[f"{layer}.weight"] = weight + weight.dtype.type(scale) * product
    return merged


def complete(arrays: Mapping[str, NDArray[Any]], own: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Complete the arrays for a network that may have adapters, so that it computes with these arrays and no leftovers.

    The adapter of a convolution whose weight is among `arrays` returns to zero, unless it is among them too.

    Args:
        arrays: Name -> array to load.
        own: Name -> tensor that the network has, of any framework; only names and shapes are read.

    Returns:
        `arrays`, and a B of zeros for each such adapter.
    """
    completed = dict(arrays)
    for name, array in arrays.items():
        adapter = name.removesuffix("weight") + "lora_b"
        if name.endswith(".weight") and adapter in own and adapter not in arrays:
            # Frameworks differ in the order of B's axes, so its rank is what the outputs leave of its size.
            rank = int(np.prod(own[adapter].shape)) // len(array)
            completed[adapter] = np.zeros((len(array), rank), array.dtype)
    return completed
