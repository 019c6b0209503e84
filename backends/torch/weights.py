"""torchvision's names <-> parameters of a PyTorch model: they are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from common.weights import Arrays


def to_arrays(model: nn.Module) -> Arrays:
    """See `backends.contract.Backend.to_arrays`."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in named_tensors(model).items()}


def load_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """See `backends.contract.Backend.load_arrays`."""
    tensors = named_tensors(model)
    with torch.no_grad():
        for name, array in arrays.items():
            if tensors[name].shape != array.shape:
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {array.shape}")
            tensors[name].copy_(torch.from_numpy(array))


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and running statistic by torchvision's name."""
    # torch counts batches for a mode of BatchNorm that this network does not use.
    return {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
