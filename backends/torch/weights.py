"""torchvision's names <-> parameters of a PyTorch model: the same, but for what adapters insert."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from common.network import lora
from common.network.conversion.stored import StoredTensors, flatten
from common.network.weights import Arrays
from common.system.errors import UserError


def to_arrays(model: nn.Module) -> Arrays:
    """Return copies of all parameters and running statistics, adapters merged into their convolutions' weights."""
    # Where there is an adapter, a layer's `weight` is the merged one.
    merged = {name: attrgetter(name)(model) for name in named_tensors(model) if not lora.is_adapter(name)}
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in merged.items()}


def load_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Copy arrays into the parameters, adapters and running statistics of these names, and leave the others.

    The adapter of a convolution that is set returns to zero, unless it is named too.

    Args:
        model: The network, or a head alone.
        arrays: torchvision's name -> values in torchvision's layout. A name that the model lacks raises KeyError.

    Raises:
        ValueError: An array has a wrong shape.
    """
    tensors = named_tensors(model)
    with torch.no_grad():
        for name, array in lora.complete(arrays, tensors).items():
            if tensors[name].shape != array.shape:
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {array.shape}")
            tensors[name].copy_(torch.from_numpy(array))


def read_file(path: Path) -> StoredTensors:
    """Read a state dict, or a checkpoint that has one in it, with `weights_only=True`, which runs no code.

    Args:
        path: What `torch.save` has written.

    Returns:
        Every tensor in it; the names are torchvision's or near them, so there is no table.

    Raises:
        UserError: It holds a pickled object or code instead.
        UnpicklingError: It is damaged.
        RuntimeError: It is damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"a pickled {blocked[1]}" if blocked else "TorchScript code" if "TorchScript" in str(error) else None
        if what is None:
            raise
        raise UserError(
            f"{path}: holds {what}, which is not loaded, because that can run code. Load it where it comes from and "
            "save its tensors alone: torch.save(model.state_dict(), 'weights.pth')"
        ) from error
    return StoredTensors({name: to_numpy(tensor) for name, tensor in flatten(content)})


def write_file(model: nn.Module, path: Path) -> None:
    """Write the state dict of a network for torchvision's `load_state_dict`, in the usual memory format."""
    torch.save({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, path)


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a copy of a tensor, in float32 where NumPy lacks its floating-point type."""
    tensor = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
    return tensor.contiguous().numpy().copy()


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return every parameter, adapter and running statistic by torchvision's name."""
    # torch counts batches for a mode of BatchNorm that this network does not use.
    tensors = {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    return {torchvision_name(name): tensor for name, tensor in tensors.items()}


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return every parameter and adapter by torchvision's name."""
    return {torchvision_name(name): parameter for name, parameter in model.named_parameters()}


def torchvision_name(name: str) -> str:
    """Remove from a parameter's name what PyTorch inserts where a weight has an adapter.

    >>> torchvision_name("conv1.parametrizations.weight.original")
    'conv1.weight'
    >>> torchvision_name("conv1.parametrizations.weight.0.lora_a")
    'conv1.lora_a'

    Args:
        name: A name in PyTorch.

    Returns:
        torchvision's name of a parameter, or `common.network.lora`'s of an adapter.
    """
    return name.replace("parametrizations.weight.original", "weight").replace("parametrizations.weight.0.", "")
