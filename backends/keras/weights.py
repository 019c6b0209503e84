"""torchvision's names <-> the variables of a Keras model, whose layers have names of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from common import resnet
from common.weights import Arrays, to_channels_first, to_channels_last

# The name of a model that is a head alone.
HEAD = "head"
# Kind of layer -> last part of torchvision's name -> the layer's attribute.
ATTRIBUTES = {
    "Dense": {"weight": "kernel", "bias": "bias"},
    "Conv2D": {"weight": "kernel", "bias": "bias"},
    "BatchNormalization": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
}


def to_arrays(model: keras.Model) -> Arrays:
    """See `backends.contract.Backend.to_arrays`."""
    return {name: to_channels_first(variable.numpy()).copy() for name, variable in named_variables(model).items()}


def load_arrays(model: keras.Model, arrays: Mapping[str, NDArray[Any]]) -> None:
    """See `backends.contract.Backend.load_arrays`."""
    variables = named_variables(model)
    for name, array in arrays.items():
        value = to_channels_last(np.asarray(array))
        if variables[name].shape != value.shape:
            raise ValueError(f"{name} is {tuple(variables[name].shape)} in Keras' layout, not {value.shape}")
        variables[name].assign(value)


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Every parameter and running statistic by torchvision's name, in torchvision's order.

    Raises RuntimeError for a variable that has no such name.
    """
    variables = {}
    for name in torchvision_names(model):
        layer_name, part = name.rsplit(".", 1)
        layer = model.layers[-1] if layer_name == "fc" else model.get_layer(keras_name(model.name, layer_name))
        kind = next(kind for kind in ATTRIBUTES if isinstance(layer, getattr(keras.layers, kind)))
        variables[name] = getattr(layer, ATTRIBUTES[kind][part])
    unnamed = {variable.path for variable in model.weights} - {variable.path for variable in variables.values()}
    if unnamed:
        raise RuntimeError(f"torchvision has no name for {', '.join(sorted(unnamed))}")
    return variables


def torchvision_names(model: keras.Model) -> tuple[str, ...]:
    """The names of a model's parameters and statistics; its own name says its architecture."""
    return resnet.HEAD if model.name == HEAD else tuple(resnet.shapes(model.name))


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
