"""torchvision's names <-> the places of parameters and statistics in flaxmodels' trees."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding
from numpy.typing import NDArray

from common.network import lora, resnet
from common.network.weights import Arrays, to_channels_first, to_channels_last


@dataclass
class Model:
    """A network and its numbers, which Flax keeps apart: the module is a description, the same at any step.

    Training replaces the trees of numbers and gives their old memory away: keep copies (`to_arrays`), not the trees.
    """

    module: Any
    """A Flax module, or `backends.jax.layers.Adapted` around one."""
    params: dict[str, Any]
    """What is trained."""
    batch_stats: dict[str, Any]
    """BatchNorm's running means and variances."""

    @property
    def variables(self) -> dict[str, Any]:
        """Both trees as the module takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def placement(self) -> Sharding:
        """Where the numbers are, on each of several devices alike; computations with them run there."""
        return self.params["Dense_0"]["kernel"].sharding


Tree = dict[str, Any]

# Where an array lies in the variables of a Flax module: collection, layers, leaf.
FlaxPath = tuple[str, ...]


def to_arrays(model: Model) -> Arrays:
    """See `common.contract.backend.Backend.to_arrays`."""
    tree = flatten_dict(model.variables)
    paths = flax_paths(model.module.architecture)
    arrays = {name: to_torchvision(tree[path]) for name, path in paths.items() if path in tree}
    return lora.merge(arrays, getattr(model.module, "lora_scale", 0.0))


def load_arrays(model: Model, arrays: Mapping[str, NDArray[Any]]) -> None:
    """See `common.contract.backend.Backend.load_arrays`."""
    tree = flatten_dict(model.variables)
    paths = flax_paths(model.module.architecture)
    own = {name: tree[path] for name, path in paths.items() if path in tree}
    for name, array in lora.complete(arrays, own).items():
        old, new = tree[paths[name]], to_channels_last(array)
        if old.shape != new.shape:
            raise ValueError(f"{name} has shape {to_torchvision(old).shape}, not {array.shape}")
        tree[paths[name]] = jnp.array(new, old.dtype, device=model.placement)
    variables = unflatten_dict(tree)
    model.params, model.batch_stats = variables["params"], variables.get("batch_stats", {})


def to_variables(architecture: str, arrays: Mapping[str, NDArray[Any]], dtype: str) -> dict[str, Any]:
    """All arrays of a network as the variables of its Flax module: `params` and `batch_stats`, copied."""
    # jnp.array copies; jnp.asarray would share memory with NumPy, which training then gives away.
    paths = flax_paths(architecture)
    return unflatten_dict({paths[name]: jnp.array(to_channels_last(array), dtype) for name, array in arrays.items()})


def to_torchvision(value: Any) -> NDArray[Any]:
    """A parameter or statistic of Flax in torchvision's layout, copied."""
    return np.array(to_channels_first(np.asarray(value)), order="C")


@functools.cache
def flax_paths(architecture: str) -> dict[str, FlaxPath]:
    """torchvision's name -> where flaxmodels keeps it, in the order of the forward pass; behind them, where adapters
    are in a network that has some."""
    names = [*resnet.shapes(architecture), *lora.shapes(architecture, rank=1)]
    # Flax numbers the blocks, and in a block the layers of a kind, as they are called.
    blocks = list(dict.fromkeys(tuple(name.split(".")[:2]) for name in names if name.startswith("layer")))
    kind, convolutions = ("BasicBlock", 2) if architecture == "resnet18" else ("Bottleneck", 3)
    paths = {}
    for name in names:
        *layer, leaf = name.split(".")
        outer = [f"{kind}_{blocks.index((layer.pop(0), layer.pop(0)))}"] if layer[0].startswith("layer") else []
        inner, collection, leaf = _flax_layer(".".join(layer), leaf, convolutions)
        paths[name] = (collection, *outer, inner, leaf)
    return paths


def _flax_layer(layer: str, leaf: str, convolutions: int) -> tuple[str, str, str]:
    if layer == "fc":
        return "Dense_0", "params", {"weight": "kernel", "bias": "bias"}[leaf]
    number = convolutions if layer.startswith("downsample") else int(layer[-1]) - 1
    if layer.startswith("conv") or layer == "downsample.0":
        return f"Conv_{number}", "params", "kernel" if leaf == "weight" else leaf
    collection = "batch_stats" if resnet.is_statistic(leaf) else "params"
    leaf = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}[leaf]
    return f"BatchNorm_{number}", collection, leaf


def read_flaxmodels_file(file: h5py.File, architecture: str) -> Arrays:
    """The arrays of a weights file of flaxmodels; raises KeyError for a file that lacks one.

    The file has Flax's layout and the torchvision names of old, such as `layer2/block0/downsample/bn/scale`.
    """
    arrays = {}
    for name, (*_, leaf) in flax_paths(architecture).items():
        if lora.is_adapter(name):
            continue
        layers = name.split(".")[:-1]
        if layers[0].startswith("layer"):
            layers[1] = f"block{layers[1]}"
        if "downsample" in layers:
            layers[-1] = {"0": "conv", "1": "bn"}[layers[-1]]
        stored = file["/".join([*layers, "weight" if leaf == "kernel" else leaf])]
        arrays[name] = to_torchvision(np.asarray(stored, np.float32))
    return arrays
