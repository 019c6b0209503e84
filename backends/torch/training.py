"""One step in PyTorch, gradients, logits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from backends.torch.layers import fold_batch_norm, set_mode, set_momentum
from backends.torch.optimizer import make_optimizer, set_trained
from backends.torch.weights import named_parameters
from common.devices import processes
from common.method.loss import target_table
from common.method.phases import Phase
from common.spec.experiment import ExperimentSpec


class Trainer:
    """See `common.contract.backend.Trainer`."""

    def __init__(
        self, model: nn.Module, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        self.model, self.spec, self.phase = model, spec, phase
        set_trained(model, phase)
        set_momentum(model, spec)
        self.optimizer = make_optimizer(model, spec, phase)
        self.world = processes.world_of(spec)
        # Averages the gradients of the processes while they are computed. Statistics are the same in each.
        self.network = DistributedDataParallel(model, forward_sync_buffers=False) if spec.devices > 1 else model
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.targets = torch.from_numpy(target_table(spec, class_counts)).to(model.fc.weight)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=model.fc.weight.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=model.fc.weight.device)

    def train_step(self, images: Tensor, labels: Tensor, rate_factor: float = 1.0) -> None:
        """See `common.contract.backend.Trainer.train_step`."""
        shares = len(images) < len(labels)
        set_mode(self.model, self.phase, shares)
        labels = shard_batch(labels, self.spec).to(self.model.fc.weight.device)
        logits = forward(self.model, images, self.network)
        self.optimizer.zero_grad()
        loss = reduced_loss(logits, self.targets[labels], self.spec)
        if shares and self.spec.loss_reduction == "sum":
            # The mean of the processes' gradients is to be that of the sum over all images.
            loss = loss * self.world.size
        loss.backward()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate_factor * rate
        self.optimizer.step()
        if not shares and not self.world.leads:
            # Every process has the whole batch, which counts once.
            return
        self.loss_sum += functional.cross_entropy(logits.detach(), labels, reduction="sum")
        self.correct += (logits.argmax(dim=1) == labels).sum()

    def read_sums(self) -> tuple[float, int]:
        """See `common.contract.backend.Trainer.read_sums`."""
        if self.spec.devices > 1:
            distributed.all_reduce(self.loss_sum)
            distributed.all_reduce(self.correct)
        sums = self.loss_sum.item(), int(self.correct.item())
        self.loss_sum.zero_()
        self.correct.zero_()
        return sums


def shard_batch(labels: Tensor, spec: ExperimentSpec) -> Tensor:
    """Return this process's share of a batch's labels; its images are loaded as a share already."""
    return labels[processes.share(len(labels), processes.world_of(spec), spec.devices)]


def reduced_loss(logits: Tensor, targets: Tensor, spec: ExperimentSpec) -> Tensor:
    """The loss that is differentiated: the sum or the mean over the batch, as the spec says."""
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return losses.sum() if spec.loss_reduction == "sum" else losses.mean()


def gradients(
    model: nn.Module,
    spec: ExperimentSpec,
    phase: Phase,
    images: Tensor,
    labels: Tensor,
    class_counts: Sequence[int] | None = None,
) -> dict[str, NDArray]:
    """See `common.contract.backend.Backend.gradients`."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    set_trained(model, phase)
    set_mode(model, phase)
    trained = {name: p for name, p in named_parameters(model).items() if p.requires_grad}
    labels = labels.to(model.fc.weight.device)
    targets = torch.from_numpy(target_table(spec, class_counts)).to(model.fc.weight)
    loss = reduced_loss(forward(model, images), targets[labels], spec)
    values = torch.autograd.grad(loss, list(trained.values()))
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    return {name: value.cpu().numpy() for name, value in zip(trained, values, strict=True)}


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> NDArray[np.floating]:
    """See `common.contract.backend.Backend.logits`."""
    model.eval()
    return of_all_processes(forward(model, images)).cpu().numpy()


def forward(model: nn.Module, images: Tensor, part: nn.Module | None = None) -> Tensor:
    """Logits, or what a part of the model makes of images, in the type of the parameters.

    Under autocast the products, and what lies between, are bfloat16.
    """
    weight = model.fc.weight
    layout = torch.channels_last if images.ndim == 4 else torch.contiguous_format
    images = images.to(weight.device, weight.dtype, non_blocking=True, memory_format=layout)
    with torch.autocast(weight.device.type, torch.bfloat16, enabled=model.uses_bf16):
        return (part or model)(images).to(weight.dtype)


def feature_extractor(model: nn.Module) -> Callable[[Tensor], NDArray[np.float32]]:
    """See `common.contract.backend.Backend.feature_extractor`."""
    folded = copy.deepcopy(model).eval()
    fold_batch_norm(folded)
    # torchvision's ResNet calls its children in their order; the last is the head.
    backbone = nn.Sequential(*list(folded.children())[:-1], nn.Flatten())

    @torch.no_grad()
    def extract(images: Tensor) -> NDArray[np.float32]:
        return of_all_processes(forward(model, images, backbone)).float().cpu().numpy()

    return extract


def of_all_processes(rows: Tensor) -> Tensor:
    """The rows that each process computed of its equal share of a batch, in the order of the batch."""
    if processes.world().size == 1:
        return rows
    gathered = rows.new_empty(processes.world().size * len(rows), *rows.shape[1:])
    distributed.all_gather_into_tensor(gathered, rows.contiguous())
    return gathered
