"""Parameter groups in PyTorch: one for each trained stage, with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from backends.torch.weights import named_parameters
from common.method.phases import Phase
from common.spec.experiment import ExperimentSpec


def make_optimizer(model: nn.Module, spec: ExperimentSpec, phase: Phase) -> torch.optim.Optimizer:
    """Make one optimizer with a parameter group for each trained stage.

    torch.optim adds weight decay to the gradient, and multiplies by the learning rate last, after momentum: a group's
    rate acts on its own step only.

    Args:
        model: The network, or a head alone.
        spec: Names the optimizer (`adam`, or SGD with momentum 0.9 or 0) and the weight decay.
        phase: Says which stages train, and their learning rates.

    Returns:
        The optimizer; each group has its stage as `name`. A trained parameter that is in no group or in two raises
        RuntimeError.
    """
    parameters = named_parameters(model)
    groups = [
        {"params": [parameters[name] for name in names], "lr": phase.learning_rates[stage], "name": stage}
        for stage, names in phase.assign(parameters).items()
    ]
    if spec.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, weight_decay=spec.weight_decay)
    else:
        momentum = 0.9 if spec.optimizer == "momentum" else 0.0
        optimizer = torch.optim.SGD(groups, momentum=momentum, weight_decay=spec.weight_decay)
    phase.check_held(held_names(optimizer, parameters), parameters)
    return optimizer


def held_names(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Return the names of the parameters in the optimizer's groups, as read back from it."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def set_trained(model: nn.Module, phase: Phase) -> None:
    """Set `requires_grad` of each parameter: True where the phase trains it, False where it is frozen."""
    for name, parameter in named_parameters(model).items():
        parameter.requires_grad_(phase.trains(name))
