"""torchvision's names <-> the variables of a Keras model, whose layers have names of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from common.network import lora, resnet
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
        architecture: `resnet18` or `resnet50_keras`.
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
    if architecture == "resnet18":
        return f"stack{stage - 1}_block{block}_{number}_{kind}"
    return f"conv{stage + 1}_block{block + 1}_{number}_{kind}"
