"""torchvision's names <-> the variables of a Keras model, whose layers have names of their own."""

from __future__ import annotations

import functools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from common.network import lora, resnet
from common.network.conversion.stored import CONTAINER, StoredTensors
from common.network.weights import Arrays, to_channels_first, to_channels_last

# The name of a model that consists of a head only.
HEAD = "head"
# Kind of layer -> last part of torchvision's name -> the layer's attribute.
ATTRIBUTES = {
    "Dense": {"weight": "kernel", "bias": "bias"},
    "Conv2D": {"weight": "kernel", "bias": "bias", "lora_a": "lora_kernel_a", "lora_b": "lora_kernel_b"},
    "BatchNormalization": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
}


def to_arrays(model: keras.Model) -> Arrays:
    """Return all parameters and running statistics, adapters merged, as copies in torchvision's layout."""
    places = {name: place_of(model, name) for name in torchvision_names(model) if not lora.is_adapter(name)}
    # Where there is an adapter, a layer's `kernel` is the merged one.
    return {name: to_channels_first(getattr(*place).numpy()).copy() for name, place in places.items()}


def load_arrays(model: keras.Model, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Assign arrays to the parameters, adapters and running statistics of these names, and leave the others.

    The adapter of a convolution that is set returns to zero, unless it is named too.

    Args:
        model: The network, or a head alone.
        arrays: torchvision's name -> values in torchvision's layout. A name that the model lacks raises KeyError.

    Raises:
        ValueError: An array has a wrong shape.
    """
    variables = named_variables(model)
    for name, array in lora.complete(arrays, variables).items():
        value = to_channels_last(np.asarray(array))
        if variables[name].shape != value.shape:
            raise ValueError(f"{name} is {tuple(variables[name].shape)} in Keras' layout, not {value.shape}")
        variables[name].assign(value)


def read_file(path: Path) -> StoredTensors:
    """Read a .weights.h5, .keras or .h5 file with h5py, so that no layer of it is built and no code of it runs.

    Args:
        path: The file.

    Returns:
        Every array under the names of its layers, such as `resnet.conv1_conv.kernel`, and the table of `own_names`.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as inner, h5py.File(inner) as file:
            arrays = read_arrays(file)
    else:
        with h5py.File(path) as file:
            arrays = read_arrays(file)
    return StoredTensors({name: to_channels_first(array) for name, array in arrays.items()}, (own_names(),))


def write_file(model: keras.Model, path: Path) -> None:
    """Write the weights of a network for Keras' `load_weights`."""
    model.save_weights(path)


def read_arrays(file: h5py.File) -> dict[str, NDArray[Any]]:
    """Return the arrays of Keras' format, or of its older one, by the names of the layers and of their variables."""
    paths: list[str] = []
    file.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    naming = name_in_keras_3 if "layers" in file or "_layer_checkpoint_dependencies" in file else name_in_keras_2
    arrays = {}
    for path in paths:
        name = naming(file, path)
        # Two layers of one name in two parts of an older file.
        arrays[path.replace("/", ".") if name in arrays else name] = read_array(file[path])
    return arrays


def read_array(dataset: h5py.Dataset) -> NDArray[Any]:
    """Return the numbers of a dataset; Keras stores the bits of bfloat16."""
    array = dataset[()]
    if dataset.attrs.get("dtype") == "bfloat16":
        return (np.asarray(array).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array)


def name_in_keras_3(file: h5py.File, path: str) -> str:
    """Return the name of a variable from Keras 3's places, such as `layers/conv2d_1/vars/0`.

    The place has the layer's class and number; its name is an attribute of `vars`.
    """
    *outer, _, index = path.split("/")
    if outer[0] not in ("layers", "_layer_checkpoint_dependencies"):
        return CONTAINER.join((*outer, index))
    groups = ["/".join(outer[:end]) for end in range(2, len(outer) + 1, 2)]
    layers = [str(file[f"{group}/vars"].attrs.get("name", group.split("/")[-1])) for group in groups]
    variables = file[f"{groups[-1]}/vars"]
    parts = {4: ("kernel", "bias"), 2: ("kernel", "bias")}.get(variables["0"].ndim, ())
    if len(variables) == 4 and variables["0"].ndim == 1:
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
    part = parts[int(index)] if index.isdecimal() and int(index) < len(parts) else index
    return ".".join((*layers, part))


def name_in_keras_2(file: h5py.File, path: str) -> str:
    """Return the name of a variable from the older places, `<layer of the model>/<name of the variable>`."""
    name = path.removeprefix("model_weights/").removesuffix(":0")
    if name.startswith("optimizer_weights/"):
        return name
    return ".".join(name.split("/")[1:])


@functools.cache
def own_names() -> dict[str, str]:
    """Return the names of variables in KerasHub's and keras.applications' networks -> torchvision's names."""
    table = {}
    for architecture in ("resnet18", "resnet50", "resnet50_keras"):
        shapes = resnet.shapes(architecture)
        for name in shapes:
            layer, part = name.rsplit(".", 1)
            if layer != "fc":
                kind = "Conv2D" if len(shapes[f"{layer}.weight"]) == 4 else "BatchNormalization"
                table[f"{keras_name(architecture, layer)}.{ATTRIBUTES[kind][part]}"] = name
    return table


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return every variable of a model by torchvision's name.

    Args:
        model: The network, or a head alone.

    Returns:
        Parameters and running statistics in torchvision's order, then adapters. A convolution with an adapter is here
        with its own kernel, not the merged one.

    Raises:
        RuntimeError: A variable has no such name.
    """
    variables = {}
    for name in torchvision_names(model):
        layer, attribute = place_of(model, name)
        # Beside an adapter, the layer's own kernel has no public name.
        own = "_kernel" if attribute == "kernel" and layer.lora_enabled else attribute
        variables[name] = getattr(layer, own)
    unnamed = {variable.path for variable in model.weights} - {variable.path for variable in variables.values()}
    if unnamed:
        raise RuntimeError(f"torchvision has no name for {', '.join(sorted(unnamed))}")
    return variables


def torchvision_names(model: keras.Model) -> tuple[str, ...]:
    """Return the names of a model's parameters, statistics and adapters; its own name says its architecture."""
    if model.name == HEAD:
        return resnet.HEAD
    adapted = any(isinstance(layer, keras.layers.Conv2D) and layer.lora_enabled for layer in model.layers)
    return (*resnet.shapes(model.name), *(lora.shapes(model.name, rank=1) if adapted else ()))


def place_of(model: keras.Model, name: str) -> tuple[keras.Layer, str]:
    """Return the layer, and its attribute, that hold what torchvision calls `name`."""
    layer_name, part = name.rsplit(".", 1)
    layer = model.layers[-1] if layer_name == "fc" else model.get_layer(keras_name(model.name, layer_name))
    kind = next(kind for kind in ATTRIBUTES if isinstance(layer, getattr(keras.layers, kind)))
    return layer, ATTRIBUTES[kind][part]


def keras_name(architecture: str, layer: str) -> str:
    """Return the name of the Keras layer that torchvision calls `layer`.

    >>> keras_name("resnet18", "layer2.0.conv1")  # KerasHub
    'stack1_block0_1_conv'
    >>> keras_name("resnet50_keras", "layer2.0.conv1")  # keras.applications
    'conv3_block1_1_conv'

    Args:
        architecture: `resnet50_keras` for keras.applications' names; any other for KerasHub's.
        layer: torchvision's name of a convolution or BatchNorm.

    Returns:
        The layer's name in KerasHub or keras.applications.
    """
    match = re.fullmatch(r"layer(\d)\.(\d)\.(conv|bn|downsample\.)(\d)", layer)
    if match is None:
        return {"conv1": "conv1_conv", "bn1": "conv1_bn"}[layer]
    stage, block, kind, number = int(match[1]), int(match[2]), match[3], match[4]
    if kind == "downsample.":
        kind, number = ("conv", "bn")[int(number)], "0"
    if architecture != "resnet50_keras":
        return f"stack{stage - 1}_block{block}_{number}_{kind}"
    return f"conv{stage + 1}_block{block + 1}_{number}_{kind}"
