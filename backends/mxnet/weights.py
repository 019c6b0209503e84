"""A Gluon model's parameters by torchvision's name: the order and the layout are the same, the names are not."""

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
