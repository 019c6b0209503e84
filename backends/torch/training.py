"""Training steps, gradients, logits and features in PyTorch."""

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
    """Train one model through one phase, with one optimizer that has a parameter group for each trained stage.

    With several devices each process has a Trainer, and DistributedDataParallel averages their gradients (an
    all-reduce) while the backward pass computes them.

    Args:
        model: The network, or a head alone; trained in place.
        spec: The experiment.
        phase: Which stages train, at which learning rates, and whose BatchNorm statistics are frozen.
        class_counts: Training images of each class, for `common.method.loss.target_table`.
    """

    def __init__(
        self, model: nn.Module, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        self.model, self.spec, self.phase = model, spec, phase
        set_trained(model, phase)
        set_momentum(model, spec)
        self.optimizer = make_optimizer(model, spec, phase)
        self.world = processes.world_of(spec)
        # The all-reduce averages gradients. BatchNorm statistics are the same in every process and need no broadcast.
        self.network = DistributedDataParallel(model, forward_sync_buffers=False) if spec.devices > 1 else model
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.targets = torch.from_numpy(target_table(spec, class_counts)).to(model.fc.weight)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=model.fc.weight.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=model.fc.weight.device)

    def train_step(self, images: Tensor, labels: Tensor, rate_factor: float = 1.0) -> None:
        """Run forward pass, `zero_grad`, `backward` and the optimizer's `step`, without waiting for the device.

        `zero_grad` drops the gradients of the step before, `backward` writes those of this batch, and `step` reads
        them, with each group's learning rate set just before it.

        Args:
            images: (N, 3, H, W), or feature vectors (N, features); with several processes, this one's share.
            labels: (N,) int64, always those of the whole batch. Where there are more labels than images, the processes
                share the batch; otherwise each computes all of it, and only the first one counts it in the sums.
            rate_factor: Multiple of all learning rates in this step.
        """
        shares = len(images) < len(labels)
        set_mode(self.model, self.phase, shares)
        labels = shard_batch(labels, self.spec).to(self.model.fc.weight.device)
        logits = forward(self.model, images, self.network)
        self.optimizer.zero_grad()
        loss = reduced_loss(logits, self.targets[labels], self.spec)
        if shares and self.spec.loss_reduction == "sum":
            # The all-reduce averages, but the gradient of the sum over all images is the processes' sum.
            loss = loss * self.world.size
        loss.backward()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate_factor * rate
        self.optimizer.step()
        if not shares and not self.world.leads:
            # Every process has the whole batch, so only the first one counts it.
            return
        self.loss_sum += functional.cross_entropy(logits.detach(), labels, reduction="sum")
        self.correct += (logits.argmax(dim=1) == labels).sum()

    def read_sums(self) -> tuple[float, int]:
        """Return the sum of the losses and the number of correct answers, and set both to zero.

        Returns:
            The sums over the examples since the last call. They come from an all-reduce, so they are the same in every
            process. The losses are plain cross-entropy, whatever the targets.
        """
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
    """Return the loss that is differentiated: the sum or the mean over the batch, as `spec.loss_reduction` says.

    Args:
        logits: (N, classes).
        targets: (N, classes): each example's row of `common.method.loss.target_table`.
        spec: The experiment.

    Returns:
        The sum or mean of -sum_c(targets[n, c] * log_softmax(logits)[n, c]) over n: a scalar.
    """
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return losses.sum() if spec.loss_reduction == "sum" else losses.mean()


def gradients(
    model: nn.Module,
    spec: ExperimentSpec,
    phase: Phase,
    batch: tuple[Tensor, Tensor],
    class_counts: Sequence[int] | None = None,
) -> dict[str, NDArray]:
    """Return the gradients of the loss by `torch.autograd.grad`, which writes into no parameter's `grad`.

    The forward pass in training mode moves the BatchNorm statistics; they are put back afterwards.

    Args:
        model: The network, or a head alone.
        spec: The experiment; weight decay is left out.
        phase: Which parameters train, and whose BatchNorm statistics are frozen.
        batch: Images (N, 3, H, W), or feature vectors (N, features), and labels (N,) int64.
        class_counts: Training images of each class, for `common.method.loss.target_table`.

    Returns:
        torchvision's name of each trained parameter -> its gradient.
    """
    images, labels = batch
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
    """Return the logits (N, classes) of a batch in evaluation mode.

    Args:
        model: The network, or a head alone.
        images: (N, 3, H, W), or feature vectors (N, features); with several processes, this one's share.

    Returns:
        The rows of all processes, gathered in each; float32, or float64 in a float64 experiment.
    """
    model.eval()
    return of_all_processes(forward(model, images)).cpu().numpy()


def forward(model: nn.Module, images: Tensor, part: nn.Module | None = None) -> Tensor:
    """Compute the logits of images, or the output of a part of the model.

    Under autocast, in an experiment of precision `bf16`, products and what lies between them are bfloat16.

    Args:
        model: Says device, precision and type.
        images: (N, 3, H, W), or feature vectors (N, features); copied to the model's device, images as channels-last.
        part: The module to call in the place of the model, such as its wrapper for several processes; None for the
            model.

    Returns:
        The output in the type of the model's parameters.
    """
    weight = model.fc.weight
    layout = torch.channels_last if images.ndim == 4 else torch.contiguous_format
    images = images.to(weight.device, weight.dtype, non_blocking=True, memory_format=layout)
    with torch.autocast(weight.device.type, torch.bfloat16, enabled=model.uses_bf16):
        return (part or model)(images).to(weight.dtype)


def feature_extractor(model: nn.Module) -> Callable[[Tensor], NDArray[np.float32]]:
    """Return a function that computes what the head sees of a batch in evaluation mode.

    It calls a deep copy of the backbone with BatchNorm folded into the convolutions, so it does not follow later
    changes of the model.

    Args:
        model: The whole network.

    Returns:
        A function from images (N, 3, H, W) to features (N, features) float32, those of all processes as in `logits`.
    """
    folded = copy.deepcopy(model).eval()
    fold_batch_norm(folded)
    # torchvision's ResNet calls its children in their order; the last is the head.
    backbone = nn.Sequential(*list(folded.children())[:-1], nn.Flatten())

    @torch.no_grad()
    def extract(images: Tensor) -> NDArray[np.float32]:
        return of_all_processes(forward(model, images, backbone)).float().cpu().numpy()

    return extract


def of_all_processes(rows: Tensor) -> Tensor:
    """Gather the rows that each process computed of its equal share of a batch.

    Args:
        rows: (n, ...) of this process.

    Returns:
        (processes * n, ...) in the order of the batch, the same in every process; without others, `rows` itself.
    """
    if processes.world().size == 1:
        return rows
    gathered = rows.new_empty(processes.world().size * len(rows), *rows.shape[1:])
    distributed.all_gather_into_tensor(gathered, rows.contiguous())
    return gathered
