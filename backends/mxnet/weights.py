"""A Gluon model's parameters by torchvision's name: the order and the layout are the same, the names are not."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
from mxnet import np
from mxnet.gluon import HybridBlock, Parameter, nn
from mxnet.gluon.model_zoo import vision
from mxnet.gluon.model_zoo.vision import ResNetV2
from numpy.typing import NDArray

from common.network import lora, resnet
from common.network.conversion.stored import StoredTensors
from common.network.weights import Arrays
from common.system.errors import UserError


class Head(HybridBlock):
    """The last layer of the model zoo's ResNets, under the name it has there, `output`."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.output = nn.Dense(classes, in_units=features)

    def hybrid_forward(self, F: Any, features: np.ndarray) -> np.ndarray:
        """Return the logits, (N, classes), of feature vectors (N, features)."""
        return self.output(features)


def to_arrays(model: HybridBlock) -> Arrays:
    """Return copies of every parameter and running statistic by torchvision's name, taken from the first device.

    Gluon's layout is torchvision's: OIHW and (out, in). Adapters are merged into the weights of their convolutions.
    """
    arrays = {name: parameter.list_data()[0].asnumpy() for name, parameter in named_parameters(model).items()}
    return lora.merge(arrays, getattr(model, "lora_scale", 0.0))


def load_arrays(model: HybridBlock, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set the named parameters, adapters and running statistics on all devices, and leave the others.

    An unknown name ends in a KeyError.

    Args:
        model: The network to change.
        arrays: New values by torchvision's name, in torchvision's layout. The adapter of a convolution that is set
            returns to zero, unless it is named too.

    Raises:
        ValueError: An array has the wrong shape.
    """
    parameters = named_parameters(model)
    for name, array in lora.complete(arrays, parameters).items():
        if parameters[name].shape != array.shape:
            raise ValueError(f"{name} has shape {parameters[name].shape}, not {array.shape}")
        # Via an MXNet array: oneDNN keeps used parameters in its own layout, into which no NumPy array can be copied.
        value = np.array(array, dtype=parameters[name].dtype, ctx=parameters[name].list_ctx()[0])
        parameters[name].set_data(value)


def read_file(path: Path) -> StoredTensors:
    """Read a .params file of `save_parameters`, or of `export`, which puts `arg:` or `aux:` before each name.

    Args:
        path: The file.

    Returns:
        Every array, and the tables of `own_names`.

    Raises:
        UserError: The arrays have no names.
    """
    arrays = load_file(path)
    if not isinstance(arrays, dict):
        raise UserError(f"{path}: holds arrays without names; save a network with net.save_parameters")
    plain = {name.removeprefix("arg:").removeprefix("aux:"): array.asnumpy() for name, array in arrays.items()}
    return StoredTensors(plain, own_names())


def load_file(path: Path) -> Any:
    """Return the arrays of a file, whether it was saved with or without NumPy's semantics (`npx.set_np`)."""
    try:
        return mx.nd.load(str(path))
    except mx.MXNetError as error:
        if "is_np_shape" not in str(error):
            raise
    with mx.util.np_array(False), mx.util.np_shape(False):
        return mx.nd.load(str(path))


def write_file(model: HybridBlock, path: Path) -> None:
    """Write the parameters of a network for Gluon's `load_parameters`."""
    model.save_parameters(str(path))


@functools.cache
def own_names() -> tuple[dict[str, str], ...]:
    """Return tables of Gluon's names -> torchvision's: for either network, by blocks, `features` alone, and symbols."""
    tables = []
    for zoo_name in ("resnet18_v1", "resnet18_v2"):
        network = vision.get_model(zoo_name)
        names = {parameter.name: name for name, parameter in named_parameters(network).items()}
        blocks = network._collect_params_with_prefix()
        tables.append({place: names[parameter.name] for place, parameter in blocks.items()})
        tables.append({place.removeprefix("features."): name for place, name in tables[-1].items()})
        tables.append({symbol.removeprefix(network.prefix): name for symbol, name in names.items()})
    return tuple(tables)


def named_parameters(model: HybridBlock) -> dict[str, Parameter]:
    """Return every parameter, running statistic and adapter by torchvision's name.

    Gluon counts all three as parameters. The network's own are in torchvision's order, and the adapters come last.
    """
    names = resnet.HEAD
    if not isinstance(model, Head):
        names = resnet.shapes("resnet18_v2" if isinstance(model, ResNetV2) else "resnet18")
    parameters = model.collect_params()
    adapters = {name: p for name, p in parameters.items() if name.endswith(("lora_a", "lora_b"))}
    named = dict(zip(names, (p for name, p in parameters.items() if name not in adapters), strict=True))
    layers = {p.name.removesuffix("weight"): name.removesuffix("weight") for name, p in named.items()}
    named.update({layers[name[:-6]] + name[-6:]: parameter for name, parameter in adapters.items()})
    return named
