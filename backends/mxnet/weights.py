"""torchvision's names <-> parameters of a Gluon model: the same order, the same layout, other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mxnet import np
from mxnet.gluon import HybridBlock, Parameter, nn
from mxnet.gluon.model_zoo.vision import ResNetV2
from numpy.typing import NDArray

from common.network import lora, resnet
from common.network.weights import Arrays


class Head(HybridBlock):
    """The last layer of the model zoo's ResNets, under the same name."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.output = nn.Dense(classes, in_units=features)

    def hybrid_forward(self, F: Any, features: np.ndarray) -> np.ndarray:
        return self.output(features)


def to_arrays(model: HybridBlock) -> Arrays:
    """See `common.contract.backend.Backend.to_arrays`."""
    arrays = {name: parameter.list_data()[0].asnumpy() for name, parameter in named_parameters(model).items()}
    return lora.merge(arrays, getattr(model, "lora_scale", 0.0))


def load_arrays(model: HybridBlock, arrays: Mapping[str, NDArray[Any]]) -> None:
    """See `common.contract.backend.Backend.load_arrays`."""
    parameters = named_parameters(model)
    for name, array in lora.complete(arrays, parameters).items():
        if parameters[name].shape != array.shape:
            raise ValueError(f"{name} has shape {parameters[name].shape}, not {array.shape}")
        # oneDNN keeps what it computed with in a layout of its own, into which MXNet can copy no NumPy array.
        value = np.array(array, dtype=parameters[name].dtype, ctx=parameters[name].list_ctx()[0])
        parameters[name].set_data(value)


def named_parameters(model: HybridBlock) -> dict[str, Parameter]:
    """Every parameter, running statistic and adapter by torchvision's name; Gluon calls them all parameters."""
    names = resnet.HEAD
    if not isinstance(model, Head):
        names = resnet.shapes("resnet18_v2" if isinstance(model, ResNetV2) else "resnet18")
    parameters = model.collect_params()
    adapters = {name: p for name, p in parameters.items() if name.endswith(("lora_a", "lora_b"))}
    named = dict(zip(names, (p for name, p in parameters.items() if name not in adapters), strict=True))
    layers = {p.name.removesuffix("weight"): name.removesuffix("weight") for name, p in named.items()}
    named.update({layers[name[:-6]] + name[-6:]: parameter for name, parameter in adapters.items()})
    return named
