"""Find the head among the tensors of a network, whatever it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Head:
    """A dense layer from features to classes, or the reason why there is none."""

    weight: str = ""
    """Name of the weight, (classes, features); empty for none."""
    bias: str = ""
    """Name of the bias; empty where the layer has none."""
    why_not: str = ""
    """Why dense layers that are there are no head that can be kept."""


def find_head(rest: Tensors, features: int) -> Head:
    """Find the head: the one dense layer on the features, with nothing behind it and nothing between.

    Args:
        rest: The tensors beside the backbone. One called `fc.weight` goes before others on the features.
        features: Length of the feature vector.

    Returns:
        The head, or why there is none.
    """
    dense = {name: tensor for name, tensor in rest.items() if tensor.ndim == 2}
    fitting = [name for name, tensor in dense.items() if tensor.shape[1] == features and len(tensor)]
    if not fitting:
        return Head(why_not=f"no dense layer takes {features} features" if dense else "")
    if len(fitting) > 1:
        if "fc.weight" not in fitting:
            return Head(why_not=f"several dense layers take the {features} features: {', '.join(fitting)}")
        fitting = ["fc.weight"]
    name = fitting[0]
    behind = [other for other, tensor in dense.items() if other != name and tensor.shape[1] == len(dense[name])]
    layer = name.rpartition(".")[0]
    bias = next((other for other in (f"{layer}.bias", f"{layer}_bias") if other in rest), "")
    # Such as the scale of a normalisation of the features.
    between = [other for other, tensor in rest.items() if tensor.shape == (features,) and other != bias]
    if behind or between:
        return Head(why_not=f"a head of several layers cannot be kept: {', '.join([name, *behind, *between][:3])}")
    if bias and rest[bias].shape != dense[name].shape[:1]:
        return Head(why_not=f"{bias} has shape {rest[bias].shape}, and {name} {dense[name].shape}")
    return Head(name, bias)


def arrays_of(head: Head, rest: Tensors) -> dict[str, NDArray[Any]]:
    """Return the head under torchvision's names, `fc.weight` and `fc.bias`; a missing bias is zero."""
    weight = rest[head.weight]
    return {"fc.weight": weight, "fc.bias": rest[head.bias] if head.bias else np.zeros(len(weight), np.float32)}
