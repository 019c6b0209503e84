"""Low-rank adapters beside the convolutions of a network: LoRA, in terms of no framework.

A convolution of weight W (out, in, height, width) computes with W + scale * B A instead, where A (rank, in, height,
width) and B (out, rank) are trained, W is not, and the product runs over the rank. A is a convolution to `rank`
channels and B one of 1 x 1 after it, so both have layouts that every framework knows. B starts at zero: the network
is at first the one it adapts. The scale is alpha / rank. Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large
Language Models"; Keras' `enable_lora` is the same definition for convolutions.
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
    """Whether a name is that of an adapter's A or B."""
    return name.endswith(SUFFIXES)


def shapes(architecture: str, rank: int) -> resnet.Shapes:
    """Name -> shape of A and B of every convolution, in the order of the forward pass."""
    table: resnet.Shapes = {}
    for name, shape in resnet.shapes(architecture).items():
        if len(shape) == 4:
            layer = name.removesuffix(".weight")
            table[f"{layer}.lora_a"] = (rank, *shape[1:])
            table[f"{layer}.lora_b"] = (shape[0], rank)
    return table


def initial(architecture: str, rank: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Adapters before training, float32, the same in every backend: A Kaiming-uniform as in the paper's code, which
    is uniform within 1 / sqrt(in * height * width), and B zero."""
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
    """A network's arrays with its adapters in the convolutions' weights, and no longer beside them.

    The weights that `arrays` has no adapter for stay as they are.
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
    """What to load into a network that has the tensors `own`, by name, so that it computes with `arrays`.

    The adapter of a convolution whose weight is among `arrays` returns to zero, unless it is among them too.
    """
    completed = dict(arrays)
    for name, array in arrays.items():
        adapter = name.removesuffix("weight") + "lora_b"
        if name.endswith(".weight") and adapter in own and adapter not in arrays:
            # Frameworks differ in the order of B's axes, so its rank is what the outputs leave of its size.
            rank = int(np.prod(own[adapter].shape)) // len(array)
            completed[adapter] = np.zeros((len(array), rank), array.dtype)
    return completed
