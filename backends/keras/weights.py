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

# The name of a model that is a head alone.
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
    """See `common.contract.backend.Backend.to_arrays`."""
    places = {name: place_of(model, name) for name in torchvision_names(model) if not lora.is_adapter(name)}
    # Where there is an adapter, a layer's `kernel` is the merged one.
    return {name: to_channels_first(getattr(*place).numpy()).copy() for name, place in places.items()}


def load_arrays(model: keras.Model, arrays: Mapping[str, NDArray[Any]]) -> None:
    """See `common.contract.backend.Backend.load_arrays`."""
    variables = named_variables(model)
    for name, array in lora.complete(arrays, variables).items():
        value = to_channels_last(np.asarray(array))
        if variables[name].shape != value.shape:
            raise ValueError(f"{name} is {tuple(variables[name].shape)} in Keras' layout, not {value.shape}")
        variables[name].assign(value)


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Every parameter and running statistic by torchvision's name, in torchvision's order, then every adapter.

    Raises RuntimeError for a variable that has no such name.
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
    """The names of a model's parameters, statistics and adapters; its own name says its architecture."""
    if model.name == HEAD:
        return resnet.HEAD
    adapted = any(isinstance(layer, keras.layers.Conv2D) and layer.lora_enabled for layer in model.layers)
    return (*resnet.shapes(model.name), *(lora.shapes(model.name, rank=1) if adapted else ()))


def place_of(model: keras.Model, name: str) -> tuple[keras.Layer, str]:
    """The layer and its attribute that hold what torchvision calls `name`."""
    layer_name, part = name.rsplit(".", 1)
    layer = model.layers[-1] if layer_name == "fc" else model.get_layer(keras_name(model.name, layer_name))
    kind = next(kind for kind in ATTRIBUTES if isinstance(layer, getattr(keras.layers, kind)))
    return layer, ATTRIBUTES[kind][part]


def keras_name(architecture: str, layer: str) -> str:
    """The Keras layer that torchvision calls `layer`: `layer2.0.conv1` is `stack1_block0_1_conv` in KerasHub and
    `conv3_block1_1_conv` in keras.applications."""
    match = re.fullmatch(r"layer(\d)\.(\d)\.(conv|bn|downsample\.)(\d)", layer)
    if match is None:
        return {"conv1": "conv1_conv", "bn1": "conv1_bn"}[layer]
    stage, block, kind, number = int(match[1]), int(match[2]), match[3], match[4]
    if kind == "downsample.":
        kind, number = ("conv", "bn")[int(number)], "0"
    if architecture == "resnet18":
        return f"stack{stage - 1}_block{block}_{number}_{kind}"
    return f"conv{stage + 1}_block{block + 1}_{number}_{kind}"
