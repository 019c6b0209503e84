"""The source network, the network to fine-tune and the network to train from scratch, from torchvision."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.utils import parametrize

from backends.torch.runtime import find_device, parameter_type
from backends.torch.weights import load_arrays
from common.contract.backend import Models
from common.network import lora, resnet, sources
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# torchvision's builders and the names of their first ImageNet weights, which the chapter uses.
BUILDERS = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}
ZOO_WEIGHTS = "IMAGENET1K_V1"


def build_models(spec: ExperimentSpec) -> Models:
    """See `common.contract.backend.Backend.build_models`."""
    pretrained = fine_tune = None
    if spec.weights != "none":
        pretrained = build_source(spec)
        fine_tune = copy.deepcopy(pretrained)
        fine_tune.fc = nn.Linear(fine_tune.fc.in_features, spec.classes)
        if spec.initial_values == "shared":
            load_arrays(fine_tune, resnet.initial_head(spec.model, spec.classes, spec.seed))
        else:
            nn.init.xavier_uniform_(fine_tune.fc.weight)
        if spec.strategy == "lora":
            add_adapters(fine_tune, spec)
    scratch = build_network(spec, num_classes=spec.classes)
    if spec.initial_values == "shared":
        load_arrays(scratch, resnet.initial_network(spec.model, spec.classes, spec.seed))
    return Models(*(model and place(model, spec) for model in (pretrained, fine_tune, scratch)))


def place(model: nn.Module, spec: ExperimentSpec) -> nn.Module:
    """The network on its device, in its precision, and in the memory layout that convolutions are fastest in."""
    # Read by `training.forward`: only the products are computed in bfloat16, so it is no type of a parameter.
    model.uses_bf16 = spec.precision == "bf16"
    return model.to(device=find_device(spec), dtype=parameter_type(spec), memory_format=torch.channels_last)


def build_source(spec: ExperimentSpec) -> nn.Module:
    """The source network with its numbers, on the CPU."""
    if spec.weights == "imagenet":
        try:
            return build_network(spec, weights=ZOO_WEIGHTS)
        # Of a file in its cache torch checks nothing, so a damaged one shows itself only when it is read.
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"weights = 'imagenet': torchvision could not download and read {spec.model} ({reason}). Where there "
                f"is no network, use --weights distilled, or put the file into {torch.hub.get_dir()}/checkpoints "
                "(delete a damaged one there)"
            ) from error
    checkpoint = sources.read_for(spec)
    assert checkpoint is not None
    model = build_network(spec, num_classes=len(checkpoint.header.class_names))
    load_arrays(model, checkpoint.arrays)
    return model


def build_network(spec: ExperimentSpec, **options: Any) -> nn.Module:
    """torchvision's network; of several devices with a BatchNorm that sees the whole batch."""
    return BUILDERS[spec.model](norm_layer=WholeBatchNorm if spec.devices > 1 else nn.BatchNorm2d, **options)


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


class WholeBatchNorm(nn.BatchNorm2d):
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


def class_weight(model: nn.Module, index: int) -> NDArray:
    """See `common.contract.backend.Backend.class_weight`."""
    return model.fc.weight[index].detach().float().cpu().numpy().copy()


def head_of(model: nn.Module) -> nn.Module:
    """See `common.contract.backend.Backend.head_of`."""
    head = nn.Sequential(OrderedDict(fc=copy.deepcopy(model.fc)))
    head.uses_bf16 = model.uses_bf16
    return head
