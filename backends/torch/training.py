"""Fine-tuning in PyTorch: parameter groups, one step, gradients, logits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import backends.torch
from backends.torch.weights import named_parameters
from common import fit, groups
from common.fit import History, Watch
from common.folder import ImageData
from common.groups import Phase
from common.spec import ExperimentSpec


def train_fine_tuning(
    model: nn.Module, spec: ExperimentSpec, data: ImageData, param_group: bool = True, watch: Watch | None = None
) -> History:
    """See `backends.contract.Backend.train_fine_tuning`."""
    return fit.fit(backends.torch, model, spec, data, param_group, watch)


class Trainer:
    """See `backends.contract.Trainer`."""

    def __init__(self, model: nn.Module, spec: ExperimentSpec, phase: Phase) -> None:
        self.model, self.spec, self.phase = model, spec, phase
        set_trained(model, phase)
        self.optimizer = make_optimizer(model, spec, phase)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=model.fc.weight.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=model.fc.weight.device)

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """See `backends.contract.Trainer.train_step`."""
        set_mode(self.model, self.phase)
        images, labels = to_model(self.model, images), labels.to(self.model.fc.weight.device)
        logits = self.model(images)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        self.optimizer.zero_grad()
        reduce_loss(losses, self.spec).backward()
        self.optimizer.step()
        self.loss_sum += losses.detach().sum()
        self.correct += (logits.argmax(dim=1) == labels).sum()

    def read_sums(self) -> tuple[float, int]:
        """See `backends.contract.Trainer.read_sums`."""
        sums = self.loss_sum.item(), int(self.correct.item())
        self.loss_sum.zero_()
        self.correct.zero_()
        return sums


def make_optimizer(model: nn.Module, spec: ExperimentSpec, phase: Phase) -> torch.optim.Optimizer:
    """An optimizer with a parameter group for each trained stage; raises RuntimeError for a parameter in none."""
    parameters = named_parameters(model)
    stages = groups.by_stage(filter(phase.trains, parameters))
    parameter_groups = [
        {
            "params": [parameters[name] for name in stages[stage]],
            "lr": spec.learning_rate * phase.multiples[stage],
            "name": stage,
        }
        for stage in phase.trained_stages
    ]
    grouped = [id(p) for group in parameter_groups for p in group["params"]]
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    if sorted(grouped) != sorted(trained):
        raise RuntimeError("each trained parameter must be in exactly one parameter group")
    if spec.optimizer == "adam":
        return torch.optim.Adam(parameter_groups, weight_decay=spec.weight_decay)
    momentum = 0.9 if spec.optimizer == "momentum" else 0.0
    return torch.optim.SGD(parameter_groups, momentum=momentum, weight_decay=spec.weight_decay)


def set_trained(model: nn.Module, phase: Phase) -> None:
    """Freeze what does not train in a phase."""
    for name, parameter in named_parameters(model).items():
        parameter.requires_grad_(phase.trains(name))


def set_mode(model: nn.Module, phase: Phase) -> None:
    """Training mode, but evaluation mode for the BatchNorm layers whose statistics are frozen."""
    model.train()
    for name, layer in model.named_modules():
        # requires_grad = False does not stop BatchNorm from updating its statistics; evaluation mode does.
        if isinstance(layer, nn.BatchNorm2d) and groups.stage_of(name) in phase.frozen_statistics:
            layer.eval()


def reduce_loss(losses: Tensor, spec: ExperimentSpec) -> Tensor:
    """The loss that is differentiated: the sum or the mean over the batch, as the spec says."""
    return losses.sum() if spec.loss_reduction == "sum" else losses.mean()


def gradients(
    model: nn.Module, spec: ExperimentSpec, phase: Phase, images: Tensor, labels: Tensor
) -> dict[str, NDArray]:
    """See `backends.contract.Backend.gradients`."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    set_trained(model, phase)
    set_mode(model, phase)
    trained = {name: p for name, p in named_parameters(model).items() if p.requires_grad}
    images, labels = to_model(model, images), labels.to(model.fc.weight.device)
    loss = reduce_loss(functional.cross_entropy(model(images), labels, reduction="none"), spec)
    values = torch.autograd.grad(loss, list(trained.values()))
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    return {name: value.cpu().numpy() for name, value in zip(trained, values, strict=True)}


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> NDArray[np.floating]:
    """See `backends.contract.Backend.logits`."""
    model.eval()
    return model(to_model(model, images)).cpu().numpy()


@torch.no_grad()
def features(model: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """See `backends.contract.Backend.features`."""
    model.eval()
    # torchvision's ResNet calls its children in their order; the last is the head.
    backbone = nn.Sequential(*list(model.children())[:-1], nn.Flatten())
    return backbone(to_model(model, images)).float().cpu().numpy()


def to_model(model: nn.Module, images: Tensor) -> Tensor:
    """Images on the model's device and in its precision."""
    return images.to(model.fc.weight, non_blocking=True)
