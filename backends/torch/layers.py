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
    """An all-reduce that gradients pass through.

    Forward, it sums a tensor over all processes. As every process's loss depends on that sum, the gradient of one
    process's values is the sum of all processes' gradients: backward is the same all-reduce.
    """

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """Return the sum of `gradient` over all processes."""
        return SumOverProcesses.forward(context, gradient)


class BatchNorm(nn.BatchNorm2d):
    """Synchronised BatchNorm, which also works on a CPU, where torch.nn.SyncBatchNorm refuses.

    It learns from the images of all processes. Their shares of a batch are equal, with means m_k and variances v_k,
    which are put together as by Chan, Golub and LeVeque (1983), so that nothing cancels:

        mean = mean_k(m_k)
        variance = mean_k(v_k + (m_k - mean)^2)

    In evaluation mode, and while every process computes the whole batch, it is plain BatchNorm.
    """

    shares = False
    """Whether this process computes only a share of the batch; `set_mode` sets it before each step."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise (n, channels, H, W); in training by the statistics of all processes' shares."""
        if not (self.training and self.shares):
            return super().forward(inputs)
        size, rank = distributed.get_world_size(), distributed.get_rank()
        # As in plain BatchNorm, only inputs and outputs are bfloat16.
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
        """Move the running statistics towards those of a batch: running += momentum * (of the batch - running).

        Args:
            mean: (channels,)
            variance: (channels,) biased; the running variance takes the unbiased one, variance * count / (count - 1).
            count: Values of a channel in the whole batch.
        """
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class Adapter(nn.Module):
    """A LoRA adapter as a parametrization of a convolution's weight W.

    PyTorch calls it each time the weight is used, and the convolution then computes with W + scale * B A.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.lora_a = nn.Parameter(torch.zeros(rank, *weight.shape[1:]))
        self.lora_b = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return W + scale * B A, the product over the rank."""
        return weight + self.scale * torch.tensordot(self.lora_b, self.lora_a, dims=1)


def add_adapters(model: nn.Module, spec: ExperimentSpec) -> None:
    """Put an adapter (`common.network.lora`) beside every convolution, with the values that all backends share."""
    for layer in list(model.modules()):
        if isinstance(layer, nn.Conv2d):
            adapter = Adapter(layer.weight, spec.lora_rank, spec.lora_scale)
            parametrize.register_parametrization(layer, "weight", adapter)
    load_arrays(model, lora.initial(spec.model, spec.lora_rank, spec.seed))


def head_shape(model: nn.Module) -> tuple[int, ...]:
    """Return the shape of the head's weight, in PyTorch (classes, features)."""
    return tuple(model.fc.weight.shape)


def head_row(model: nn.Module, index: int) -> NDArray:
    """Return the head row of class `index`: (features,) float32, a copy in main memory."""
    return model.fc.weight[index].detach().float().cpu().numpy().copy()


def extract_head(model: nn.Module) -> nn.Module:
    """Return a copy of the head as a model that takes feature vectors.

    Returns:
        A Sequential whose only child is `fc`, so its parameters are `fc.weight` and `fc.bias` as in the whole network.
    """
    head = nn.Sequential(OrderedDict(fc=copy.deepcopy(model.fc)))
    head.uses_bf16 = model.uses_bf16
    return head


def set_momentum(model: nn.Module, spec: ExperimentSpec) -> None:
    """Set how much of each batch the running statistics take, which is what torch calls BatchNorm's momentum."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = spec.batch_norm_momentum


def set_mode(model: nn.Module, phase: Phase, shares: bool = False) -> None:
    """Put the model into training mode, but BatchNorm layers with frozen statistics into evaluation mode.

    Args:
        model: The network, or a head alone.
        phase: Its `frozen_statistics` name the stages.
        shares: Whether each process computes only its share of the batch.
    """
    model.train()
    for name, layer in model.named_modules():
        if isinstance(layer, BatchNorm):
            layer.shares = shares
        # requires_grad = False does not stop BatchNorm from updating its statistics; evaluation mode does.
        if isinstance(layer, nn.BatchNorm2d) and stage_of(name) in phase.frozen_statistics:
            layer.eval()


def fold_batch_norm(model: nn.Module) -> None:
    """Merge each BatchNorm into the convolution before it, in place: a tenth less time in evaluation mode.

    A convolution with an adapter stays as it is, since its weight cannot be set.
    """
    for parent in list(model.modules()):
        for (name, layer), (next_name, norm) in itertools.pairwise(list(parent.named_children())):
            plain = isinstance(layer, nn.Conv2d) and not parametrize.is_parametrized(layer)
            if plain and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                setattr(parent, next_name, nn.Identity())
