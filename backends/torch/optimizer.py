"""Parameter groups in PyTorch: one for each trained stage, with its own learning rate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from backends.torch.weights import named_parameters
from common.method.phases import Phase
from common.spec.experiment import ExperimentSpec


def make_optimizer(model: nn.Module, spec: ExperimentSpec, phase: Phase) -> torch.optim.Optimizer:
    """Make an optimizer that has a parameter group with a learning rate of its own for each trained stage.

    Raises:
        RuntimeError: A trained parameter is in no group, or in two.
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
    """Return the names of the parameters in the optimizer's groups."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def set_trained(model: nn.Module, phase: Phase) -> None:
    """Freeze what does not train in a phase."""
    for name, parameter in named_parameters(model).items():
        parameter.requires_grad_(phase.trains(name))
