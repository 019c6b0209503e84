"""Layers in JAX: BatchNorm and its modes, adapters, the head."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from flaxmodels.resnet import ops
from jax import Array
from numpy.typing import NDArray

from backends.jax.weights import Model, flax_paths
from common.network import resnet
from common.network.stages import stage_of
from common.system.errors import UserError


@dataclass(frozen=True)
class BatchNorm:
    """An interceptor that puts torch's BatchNorm in the place of flaxmodels'.

    flaxmodels' own lets a batch replace nine tenths of the running statistics, keeps the biased variance, computes it
    as a difference of large numbers, in float32 only, and has one mode for the whole network.
    """

    architecture: str
    frozen_statistics: frozenset[str]
    """Stages whose layers use their running statistics and leave them as they are; all of them in evaluation mode."""
    momentum: float = 0.0
    """Share of a batch in the running statistics."""

    def __call__(self, original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
        """Compute the layer that Flax is about to call, if it is BatchNorm; else let Flax call it."""
        layer = context.module
        if not isinstance(layer, ops.BatchNorm):
            return original(*arguments, **keywords)
        (inputs,) = arguments
        # In bfloat16 a mean over many values would be off by more than training can bear.
        values = inputs.astype(layer.get_variable("batch_stats", "mean").dtype)
        mean, variance = (layer.get_variable("batch_stats", name) for name in ("mean", "var"))
        if stages_by_path(self.architecture)[layer.path] not in self.frozen_statistics:
            mean, variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
            self.keep_statistics(layer, mean, variance, values.size // values.shape[-1])
        scale = layer.get_variable("params", "scale") * jax.lax.rsqrt(variance + resnet.BATCH_NORM_EPSILON)
        return ((values - mean) * scale + layer.get_variable("params", "bias")).astype(inputs.dtype)

    def keep_statistics(self, layer: nn.Module, mean: Array, variance: Array, count: int) -> None:
        """Move a layer's running statistics towards those of a batch of `count` values a channel."""
        if count == 1:
            raise UserError(
                "BatchNorm has one value a channel in this batch; choose another --batch-size or larger images"
            )
        unbiased = variance * (count / (count - 1))
        for name, value in (("mean", mean), ("var", unbiased)):
            kept = (1 - self.momentum) * layer.get_variable("batch_stats", name)
            layer.put_variable("batch_stats", name, kept + self.momentum * value)


@functools.cache
def stages_by_path(architecture: str) -> dict[tuple[str, ...], str]:
    """Return the stage of every layer, by its path among Flax's modules."""
    return {path[1:-1]: stage_of(name) for name, path in flax_paths(architecture).items()}


class Head(nn.Module):
    """The last layer of flaxmodels' ResNet, under the same name."""

    architecture: str
    num_classes: int
    dtype: str

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        return nn.Dense(self.num_classes, dtype=self.dtype)(features)


@dataclass(frozen=True)
class Adapted:
    """A network whose convolutions' weights are merged with their adapters (`common.network.lora`) at each call."""

    network: nn.Module
    lora_scale: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def apply(self, variables: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """As Flax's modules have it."""
        params = flatten_dict(variables["params"])
        for path in [path for path in params if path[-1] == "lora_a"]:
            kernel, other = (*path[:-1], "kernel"), (*path[:-1], "lora_b")
            # In Flax's layout (height, width, in, rank) times (rank, out).
            params[kernel] = params[kernel] + self.lora_scale * (params.pop(path) @ params.pop(other))
        return self.network.apply({**variables, "params": unflatten_dict(params)}, *arguments, **options)


def head_shape(model: Model) -> tuple[int, ...]:
    """See `common.contract.backend.Backend.head_shape`: (features, classes) in Flax."""
    return tuple(model.params["Dense_0"]["kernel"].shape)


def head_row(model: Model, index: int) -> NDArray:
    """See `common.contract.backend.Backend.head_row`."""
    return np.array(model.params["Dense_0"]["kernel"][:, index], np.float32)


def extract_head(model: Model) -> Model:
    """See `common.contract.backend.Backend.extract_head`."""
    module = Head(model.module.architecture, model.module.num_classes, model.module.dtype)
    # A copy of the numbers themselves: training gives the old ones' memory away.
    return Model(module, {"Dense_0": jax.tree.map(jnp.copy, model.params["Dense_0"])}, {})


def strided_product(original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
    """An interceptor that makes a matrix product of a 1x1 convolution with a stride, such as a block's projection.

    The gradient of such a kernel runs at a few GFLOP/s in XLA on a CPU, twenty times slower than the product's.
    """
    layer = context.module
    if not isinstance(layer, nn.Conv) or tuple(layer.kernel_size) != (1, 1) or layer.strides in (1, (1, 1)):
        return original(*arguments, **keywords)
    (images,) = arguments
    down, across = layer.strides
    kernel = layer.get_variable("params", "kernel").astype(images.dtype)
    return images[:, ::down, ::across] @ kernel[0, 0]


def without_head(original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
    """An interceptor in which dense layers do nothing."""
    return arguments[0] if isinstance(context.module, nn.Dense) else original(*arguments, **keywords)
