"""Map torchvision's names of parameters and running statistics to their places in flaxmodels' trees."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax
import h5py
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding
from numpy.typing import NDArray

from common.network import lora, resnet
from common.network.conversion.stored import CONTAINER, StoredTensors
from common.network.weights import Arrays, to_channels_first, to_channels_last


@dataclass
class Model:
    """Hold a network and its arrays, which Flax keeps apart: the module is a description that no step changes.

    Training replaces the trees of arrays and donates the old ones' memory: to keep values, copy them with `to_arrays`.
    """

    module: Any
    """A Flax module, or `backends.jax.layers.Adapted` around one."""
    params: dict[str, Any]
    """Tree of the parameters."""
    batch_stats: dict[str, Any]
    """BatchNorm's running means and variances."""

    @property
    def variables(self) -> dict[str, Any]:
        """Both trees as the module takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def placement(self) -> Sharding:
        """Where the arrays are, replicated if there are several devices; computations with them run there."""
        return self.params["Dense_0"]["kernel"].sharding


Tree = dict[str, Any]

# Where an array lies in the variables of a Flax module: collection, layers, leaf.
FlaxPath = tuple[str, ...]


def to_arrays(model: Model) -> Arrays:
    """Return copies of every parameter and running statistic by torchvision's name, in torchvision's layout.

    Flax's kernels are transposed: HWIO becomes OIHW, and (in, out) becomes (out, in). Adapters are merged into the
    weights of their convolutions.
    """
    tree = flatten_dict(model.variables)
    paths = flax_paths(model.module.architecture)
    arrays = {name: to_torchvision(tree[path]) for name, path in paths.items() if path in tree}
    return lora.merge(arrays, getattr(model.module, "lora_scale", 0.0))


def load_arrays(model: Model, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set the named parameters, adapters and running statistics, and leave the others.

    Flax's trees are rebuilt with the new arrays, which are copied to the model's devices. An unknown name ends in a
    KeyError.

    Args:
        model: The network to change.
        arrays: New values by torchvision's name, in torchvision's layout. The adapter of a convolution that is set
            returns to zero, unless it is named too.

    Raises:
        ValueError: An array has the wrong shape.
    """
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


def read_file(path: Path) -> StoredTensors:
    """Read flaxmodels' h5 file, or what `flax.serialization.to_bytes` gave of variables or of a training state.

    Args:
        path: The file.

    Returns:
        Every array by its path, such as `BasicBlock_0.Conv_0.kernel`, without the collection; arrays outside `params`
        and `batch_stats`, such as an optimizer's, under their whole path. The tables are of both kinds of file.
    """
    if h5py.is_hdf5(path):
        places: list[str] = []
        with h5py.File(path) as file:
            file.visititems(lambda place, item: places.append(place) if isinstance(item, h5py.Dataset) else None)
            arrays = {place.replace("/", "."): np.asarray(file[place]) for place in places}
    else:
        tree = flatten_dict(flax.serialization.msgpack_restore(path.read_bytes()))
        whole = any("params" in map(str, place) for place in tree)
        leaves = {tuple(map(str, place)): leaf for place, leaf in tree.items() if hasattr(leaf, "shape")}
        arrays = {name_in_tree(place, whole): np.asarray(leaf) for place, leaf in leaves.items()}
    return StoredTensors({name: to_torchvision(array) for name, array in arrays.items()}, own_names())


def write_file(model: Model, path: Path) -> None:
    """Write the variables of a network for `flax.serialization.from_bytes`."""
    path.write_bytes(flax.serialization.to_bytes(model.variables))


def name_in_tree(place: tuple[str, ...], whole: bool) -> str:
    """Return the name of an array by its place in a tree.

    Args:
        place: The keys of the tree.
        whole: Whether the tree has collections, so that what is in none of them is beside the network.

    Returns:
        The name of the layers and the leaf.
    """
    start = next((i for i, key in enumerate(place) if key in ("params", "batch_stats")), None)
    if start is not None:
        return "".join(f"{key}{CONTAINER}" for key in place[:start]) + ".".join(place[start + 1 :])
    return (CONTAINER if whole else ".").join(place)


@functools.cache
def own_names() -> tuple[dict[str, str], ...]:
    """Return the tables of flaxmodels' names -> torchvision's: in its modules, and in its files."""
    modules, files = {}, {}
    for architecture in ("resnet18", "resnet50"):
        for name in resnet.shapes(architecture):
            modules[".".join(flax_paths(architecture)[name][1:])] = name
            files[place_in_file(name, architecture).replace("/", ".")] = name
    return modules, files


def to_variables(architecture: str, arrays: Mapping[str, NDArray[Any]], dtype: str) -> dict[str, Any]:
    """Return copies of a network's arrays as the variables of its Flax module: `params` and `batch_stats`."""
    # jnp.array copies; jnp.asarray would share memory with NumPy, which training then gives away.
    paths = flax_paths(architecture)
    return unflatten_dict({paths[name]: jnp.array(to_channels_last(array), dtype) for name, array in arrays.items()})


def to_torchvision(value: Any) -> NDArray[Any]:
    """Return a copy of one of Flax's arrays in torchvision's layout."""
    return np.array(to_channels_first(np.asarray(value)), order="C")


@functools.cache
def flax_paths(architecture: str) -> dict[str, FlaxPath]:
    """Return where each of torchvision's names is in flaxmodels' variables, in the order of the forward pass.

    Behind the network's own names come those of the adapters, for a network that has some.

    Args:
        architecture: Name of the network, such as `resnet18`.

    Returns:
        Name -> path. In resnet18, `layer1.0.conv1.weight` is at `("params", "BasicBlock_0", "Conv_0", "kernel")`.
    """
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
    """Return the name of a layer within its block, the collection and the leaf of one of its arrays in Flax."""
    if layer == "fc":
        return "Dense_0", "params", {"weight": "kernel", "bias": "bias"}[leaf]
    number = convolutions if layer.startswith("downsample") else int(layer[-1]) - 1
    if layer.startswith("conv") or layer == "downsample.0":
        return f"Conv_{number}", "params", "kernel" if leaf == "weight" else leaf
    collection = "batch_stats" if resnet.is_statistic(leaf) else "params"
    leaf = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}[leaf]
    return f"BatchNorm_{number}", collection, leaf


def read_flaxmodels_file(file: h5py.File, architecture: str) -> Arrays:
    """Return the arrays of flaxmodels' weights file by torchvision's name; a file that lacks one ends in a KeyError.

    Args:
        file: The open file.
        architecture: Name of the network, such as `resnet18`.

    Returns:
        float32 arrays in torchvision's layout.
    """
    places = {name: place_in_file(name, architecture) for name in resnet.shapes(architecture)}
    return {name: to_torchvision(np.asarray(file[place], np.float32)) for name, place in places.items()}


def place_in_file(name: str, architecture: str) -> str:
    """Return where flaxmodels' weights file has what torchvision calls `name`.

    >>> place_in_file("layer2.0.downsample.1.weight", "resnet18")
    'layer2/block0/downsample/bn/scale'

    Args:
        name: torchvision's name of a parameter or statistic.
        architecture: Name of the network, such as `resnet18`.

    Returns:
        The path of the dataset.
    """
    leaf = flax_paths(architecture)[name][-1]
    layers = name.split(".")[:-1]
    if layers[0].startswith("layer"):
        layers[1] = f"block{layers[1]}"
    if "downsample" in layers:
        layers[-1] = {"0": "conv", "1": "bn"}[layers[-1]]
    return "/".join([*layers, "weight" if leaf == "kernel" else leaf])
