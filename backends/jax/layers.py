"""Layers in JAX: BatchNorm and its modes, adapters, the head.

flaxmodels' networks are not rewritten. Flax's interceptors (`nn.intercept_methods`) replace what some of their layers
compute.
"""

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
    """Intercept flaxmodels' BatchNorm layers and compute torch's BatchNorm instead.

    A layer computes y = scale * (x - mean) / sqrt(variance + epsilon) + bias. flaxmodels' own layer differs in five
    ways: each batch replaces nine tenths of the running statistics, they keep the biased variance, the variance is
    computed as a difference of large numbers, it is computed in float32 only, and the whole network has one mode.
    """

    architecture: str
    frozen_statistics: frozenset[str]
    """Stages whose layers use their running statistics and leave them unchanged; in evaluation mode, all stages."""
    momentum: float = 0.0
    """Share m of a batch in the running statistics: r <- (1 - m) r + m * (value of the batch)."""

    def __call__(self, original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
        """Compute the layer that Flax is about to call if it is a BatchNorm layer; let Flax call any other."""
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
        """Move a layer's running statistics towards those of a batch: r <- (1 - momentum) r + momentum * batch.

        The running variance takes the unbiased variance, as in torch: count / (count - 1) times the biased one.

        Args:
            layer: The BatchNorm layer.
            mean: (channels,) mean over the batch.
            variance: (channels,) biased variance over the batch.
            count: Number of values that each channel has in the batch: images * height * width.

        Raises:
            UserError: Each channel has one value only, which has no unbiased variance.
        """
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
    """Return the stage of every layer of a network, by the layer's path among Flax's modules."""
    return {path[1:-1]: stage_of(name) for name, path in flax_paths(architecture).items()}


class Head(nn.Module):
    """The last layer of flaxmodels' ResNet, under the name it has there, `Dense_0`."""

    architecture: str
    num_classes: int
    dtype: str

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Return the logits, (N, classes), of feature vectors (N, features)."""
        return nn.Dense(self.num_classes, dtype=self.dtype)(features)


@dataclass(frozen=True)
class Adapted:
    """A network that merges its convolutions' weights with their adapters (`common.network.lora`) at each call.

    Whatever else is asked of it, the network inside answers.
    """

    network: nn.Module
    lora_scale: float
    """Factor of the product in W + lora_scale * B A."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def apply(self, variables: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """Merge the adapters into the convolutions' weights, then call the network's own `apply`."""
        params = flatten_dict(variables["params"])
        for path in [path for path in params if path[-1] == "lora_a"]:
            kernel, other = (*path[:-1], "kernel"), (*path[:-1], "lora_b")
            # In Flax's layout A is (height, width, in, rank) and B is (rank, out).
            params[kernel] = params[kernel] + self.lora_scale * (params.pop(path) @ params.pop(other))
        return self.network.apply({**variables, "params": unflatten_dict(params)}, *arguments, **options)


def head_shape(model: Model) -> tuple[int, ...]:
    """Return the shape of the head's weight, which is (features, classes) in Flax."""
    return tuple(model.params["Dense_0"]["kernel"].shape)


def head_row(model: Model, index: int) -> NDArray:
    """Return a copy of the head row of class `index`, (features,) float32: a column of Flax's kernel."""
    return np.array(model.params["Dense_0"]["kernel"][:, index], np.float32)


def extract_head(model: Model) -> Model:
    """Return a copy of the head as a model of its own, which takes feature vectors instead of images.

    Its arrays are copies: training gives the memory of a model's arrays away, and the two models train apart.
    """
    module = Head(model.module.architecture, model.module.num_classes, model.module.dtype)
    # Copies, because training gives the memory of the old arrays away.
    return Model(module, {"Dense_0": jax.tree.map(jnp.copy, model.params["Dense_0"])}, {})


def strided_product(original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
    """Intercept 1x1 convolutions with a stride, such as a block's projection, and compute them as matrix products.

    XLA on a CPU computes the gradient of such a kernel at a few GFLOP/s, twenty times slower than that of the product.
    On a GPU the convolution stays, since XLA's fusion of strided slices into products ends the process there
    (jaxlib 0.11.2, `triton_tiling_propagation.cc`).

    Args:
        original: The layer's own method.
        arguments: Its positional arguments: the images, (N, H, W, in).
        keywords: Its named arguments.
        context: Flax's interceptor context, whose `module` is the layer.

    Returns:
        The layer's output, (N, H / stride, W / stride, out) for a convolution that is replaced.
    """
    layer = context.module
    if not isinstance(layer, nn.Conv) or tuple(layer.kernel_size) != (1, 1) or layer.strides in (1, (1, 1)):
        return original(*arguments, **keywords)
    if default_platform() == "gpu":
        return original(*arguments, **keywords)
    (images,) = arguments
    down, across = layer.strides
    kernel = layer.get_variable("params", "kernel").astype(images.dtype)
    return images[:, ::down, ::across] @ kernel[0, 0]


def default_platform() -> str:
    """Return `cpu` or `gpu`, the platform of the device that `prepare` has chosen, or JAX's own choice without it."""
    device = jax.config.jax_default_device
    return jax.default_backend() if device is None else device.platform


def without_head(original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
    """Intercept dense layers and return their input, so that the network returns what its head sees."""
    return arguments[0] if isinstance(context.module, nn.Dense) else original(*arguments, **keywords)
