"""torchvision's names <-> parameters of a Gluon model: the same order, the same layout, other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mxnet import np
from mxnet.gluon import HybridBlock, Parameter
from mxnet.gluon.model_zoo.vision import ResNetV2
from numpy.typing import NDArray

from common import resnet
from common.weights import Arrays


def to_arrays(model: HybridBlock) -> Arrays:
    """See `backends.contract.Backend.to_arrays`."""
    return {name: parameter.data().asnumpy() for name, parameter in named_parameters(model).items()}


def load_arrays(model: HybridBlock, arrays: Mapping[str, NDArray[Any]]) -> None:
    """See `backends.contract.Backend.load_arrays`."""
    parameters = named_parameters(model)
    for name, array in arrays.items():
        if parameters[name].shape != array.shape:
            raise ValueError(f"{name} has shape {parameters[name].shape}, not {array.shape}")
        # oneDNN keeps what it computed with in a layout of its own, into which MXNet can copy no NumPy array.
        value = np.array(array, dtype=parameters[name].dtype, ctx=parameters[name].list_ctx()[0])
        parameters[name].set_data(value)


def named_parameters(model: HybridBlock) -> dict[str, Parameter]:
    """Every parameter and running statistic by torchvision's name; Gluon calls them all parameters."""
    classes = model.output.weight.shape[0]
    names = resnet.shapes("resnet18_v2" if isinstance(model, ResNetV2) else "resnet18", classes)
    return dict(zip(names, model.collect_params().values(), strict=True))
