"""Layers in PyTorch: BatchNorm and its modes, adapters, the head."""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from backends.torch.weights import load_arrays
from common.method.phases import Phase
from common.network import lora
from common.network.stages import stage_of
from common.spec.experiment import ExperimentSpec


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, and the gradient of that: each is in the other's graph."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return SumOverProcesses.forward(context, gradient)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that learns from the images of all processes, of a CPU too, where torch.nn.SyncBatchNorm refuses.

    Means and variances of the processes' equal shares are put together as by Chan, Golub and LeVeque (1983), which
    cancels nothing. In evaluation mode, and while every process computes the whole batch, it is plain BatchNorm.
    """

    shares = False
    """Whether this process has a share of the batch only; set before each step."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not (self.training and self.shares):
            return super().forward(inputs)
        size, rank = distributed.get_world_size(), distributed.get_rank()
        # As in plain BatchNorm, bfloat16 is for what goes in and out.
        values = inputs.to(self.weight.dtype)
        variance, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
        own = torch.stack([mean, variance])
        rows = torch.stack([own if number == rank else torch.zeros_like(own) for number in range(size)])
        means, variances = SumOverProcesses.apply(rows).unbind(dim=1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        self.keep_statistics(mean.detach(), variance.detach(), size * inputs.numel() // self.num_features)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift, scale, mean = (value.view(1, -1, 1, 1) for value in (self.bias, scale, mean))
        return torch.addcmul(shift, values - mean, scale).to(inputs.dtype)

    def keep_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of a batch of `count` values a channel."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class Adapter(nn.Module):
    """A parametrization of a convolution's weight: what PyTorch computes from the original each time it is used."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.lora_a = nn.Parameter(torch.zeros(rank, *weight.shape[1:]))
        self.lora_b = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * torch.tensordot(self.lora_b, self.lora_a, dims=1)


def add_adapters(model: nn.Module, spec: ExperimentSpec) -> None:
    """Put an adapter beside every convolution (common.network.lora)."""
    for layer in list(model.modules()):
        if isinstance(layer, nn.Conv2d):
            adapter = Adapter(layer.weight, spec.lora_rank, spec.lora_scale)
            parametrize.register_parametrization(layer, "weight", adapter)
    load_arrays(model, lora.initial(spec.model, spec.lora_rank, spec.seed))


def head_shape(model: nn.Module) -> tuple[int, ...]:
    """See `common.contract.backend.Backend.head_shape`: (classes, features) in PyTorch."""
    return tuple(model.fc.weight.shape)


def head_row(model: nn.Module, index: int) -> NDArray:
    """See `common.contract.backend.Backend.head_row`."""
    return model.fc.weight[index].detach().float().cpu().numpy().copy()


def extract_head(model: nn.Module) -> nn.Module:
    """See `common.contract.backend.Backend.extract_head`."""
    head = nn.Sequential(OrderedDict(fc=copy.deepcopy(model.fc)))
    head.uses_bf16 = model.uses_bf16
    return head


def set_momentum(model: nn.Module, spec: ExperimentSpec) -> None:
    """Give a batch the share of the running statistics that the spec says."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = spec.batch_norm_momentum


def set_mode(model: nn.Module, phase: Phase, shares: bool = False) -> None:
    """Training mode, but evaluation mode for the BatchNorm layers whose statistics are frozen.

    shares: whether each process has a share of the batch only.
    """
    model.train()
    for name, layer in model.named_modules():
        if isinstance(layer, BatchNorm):
            layer.shares = shares
        # requires_grad = False does not stop BatchNorm from updating its statistics; evaluation mode does.
        if isinstance(layer, nn.BatchNorm2d) and stage_of(name) in phase.frozen_statistics:
            layer.eval()


def fold_batch_norm(model: nn.Module) -> None:
    """Make each BatchNorm part of the convolution before it, in place: a tenth less time in evaluation mode. A
    convolution with an adapter, whose weight cannot be set, stays as it is."""
    for parent in list(model.modules()):
        for (name, layer), (next_name, norm) in itertools.pairwise(list(parent.named_children())):
            plain = isinstance(layer, nn.Conv2d) and not parametrize.is_parametrized(layer)
            if plain and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                setattr(parent, next_name, nn.Identity())
