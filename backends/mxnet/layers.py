"""Layers in MXNet: BatchNorm and its modes, adapters, the head."""

from __future__ import annotations

import functools
import threading
from typing import Any

import mxnet as mx
from mxnet import autograd, np
from mxnet.gluon import Block, HybridBlock, nn
from numpy.typing import NDArray

from backends.mxnet.weights import Head, load_arrays, named_parameters, to_arrays
from common.method.phases import Phase
from common.network import lora
from common.network.stages import stage_of
from common.spec.experiment import ExperimentSpec


class AdaptedConv2D(nn.Conv2D):
    """Gluon's convolution with an adapter (`common.network.lora`) added to its weight at each call."""

    def add_adapter(self, rank: int, scale: float) -> None:
        """Give a layer whose shape is known an adapter of zeros, of rank `rank` and scale `scale`."""
        outputs, *inputs = self.weight.shape
        self.scale = scale
        self.lora_a = self.params.get("lora_a", shape=(rank, *inputs), init="zeros")
        self.lora_b = self.params.get("lora_b", shape=(outputs, rank), init="zeros")
        self.lora_a.initialize()
        self.lora_b.initialize()

    def hybrid_forward(
        self, F: Any, x: np.ndarray, weight: np.ndarray, lora_a: np.ndarray, lora_b: np.ndarray
    ) -> np.ndarray:
        """Convolve with weight + scale * (lora_b lora_a), where the product runs over the rank."""
        merged = weight + self.scale * F.np.tensordot(lora_b, lora_a, axes=1)
        return super().hybrid_forward(F, x, merged)


class Exchange:
    """Let the devices of a model, each in a thread of its own, hand each other arrays in a forward pass.

    It is the all-reduce of synchronised BatchNorm's means.
    """

    def __init__(self, devices: list[mx.Context]) -> None:
        self.devices, self.barrier = devices, threading.Barrier(len(devices), timeout=600)
        self.given: list[Any] = [None] * len(devices)
        self.together = True
        """Whether each device has a share of the batch; otherwise each has all of it."""

    @property
    def count(self) -> int:
        """Number of devices whose shares make the batch."""
        return len(self.devices) if self.together else 1

    def mean(self, value: np.ndarray) -> np.ndarray:
        """Return the mean over the devices' shares of the value that each of them gives.

        Each device's thread calls it at the same point of the forward pass and waits for the others. autograd records
        the sum, so the gradient too goes to all shares. Where every device has the whole batch, the value is returned
        as it is.
        """
        if not self.together:
            return value
        self.given[self.devices.index(value.ctx)] = value
        self.barrier.wait()
        total = sum(given.as_in_ctx(value.ctx) for given in self.given)
        # No device may hand over its next array before all have read this one.
        self.barrier.wait()
        return total / self.count


class BatchNorm(nn.BatchNorm):
    """Gluon's BatchNorm, synchronised over the devices, with the unbiased variance in its running statistics.

    MXNet's own operator for it, contrib.SyncBatchNorm, hangs for ever on CPUs where one such layer follows another.
    """

    def hybrid_forward(self, F: Any, x: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
        """Compute gamma * (x - mean) / sqrt(variance + eps) + beta with the statistics of the whole batch.

        With frozen statistics and in evaluation mode Gluon's own layer computes instead. In training mode the running
        statistics move too: r <- momentum * r + (1 - momentum) * batch. The batch's variance over n values a channel
        is first multiplied by n / (n - 1).

        Args:
            F: Gluon's operators.
            x: (N, channels, H, W), this device's share of the batch.
            **parameters: gamma, beta, running_mean and running_var, each (channels,).

        Returns:
            The normalised values, with the shape of `x`.
        """
        if self._kwargs["use_global_stats"] or not autograd.is_training():
            return super().hybrid_forward(F, x, **parameters)
        mean = self.exchange.mean(x.mean(axis=(0, 2, 3), keepdims=True))
        centred = x - mean
        variance = self.exchange.mean(np.square(centred).mean(axis=(0, 2, 3), keepdims=True))
        with autograd.pause():
            keep, count = self._kwargs["momentum"], self.exchange.count * x.size // x.shape[1]
            unbiased = variance * (count / max(count - 1, 1))
            for name, value in (("running_mean", mean), ("running_var", unbiased)):
                parameters[name][:] = keep * parameters[name] + (1 - keep) * value.reshape(-1)
        gamma, beta = (parameters[name].reshape(1, -1, 1, 1) for name in ("gamma", "beta"))
        return centred * (gamma / np.sqrt(variance + self._kwargs["eps"])) + beta


def synchronise(model: HybridBlock, devices: list[mx.Context]) -> None:
    """Make every BatchNorm layer of a model a synchronised one over several devices.

    Args:
        model: The network to change.
        devices: The contexts that share its batches.
    """
    exchange = Exchange(devices)

    def change(block: Block) -> None:
        if isinstance(block, nn.BatchNorm):
            # As with the adapters, Gluon has no other way to change a layer that is part of a network already.
            block.__class__ = BatchNorm
            block.exchange = exchange

    model.apply(change)


def exchange_of(model: HybridBlock) -> Exchange | None:
    """Return the exchange of a model's synchronised BatchNorm layers, or None if none of them uses batch statistics."""
    layers: list[Block] = []
    model.apply(layers.append)
    learning = (b for b in layers if isinstance(b, BatchNorm) and not b._kwargs["use_global_stats"])
    return next((layer.exchange for layer in learning), None)


def add_adapters(model: HybridBlock, spec: ExperimentSpec) -> None:
    """Add an adapter (`common.network.lora`) to every convolution, with the initial values of every backend."""

    def adapt(block: Block) -> None:
        if isinstance(block, nn.Conv2D):
            # Gluon has no other way to change a layer that is part of a network already.
            block.__class__ = AdaptedConv2D
            block.add_adapter(spec.lora_rank, spec.lora_scale)

    model.apply(adapt)
    model.lora_scale = spec.lora_scale
    load_arrays(model, lora.initial(spec.model, spec.lora_rank, spec.seed))


def compile_network(model: HybridBlock) -> None:
    """Let MXNet run the network as one graph whose memory it plans ahead, anew for a batch of another size.

    A network in which a BatchNorm layer learns from several devices runs operation by operation instead.
    """
    # Not static_shape: with it, reading running statistics does not wait for the backward pass that writes them.
    model.hybridize(exchange_of(model) is None, static_alloc=True)


def head_shape(model: HybridBlock) -> tuple[int, ...]:
    """Return the shape of the head's weight, which is (classes, features) in Gluon."""
    return tuple(model.output.weight.shape)


def head_row(model: HybridBlock, index: int) -> NDArray:
    """Return a copy of the head row of class `index`, (features,) float32."""
    return model.output.weight.list_data()[0][index].asnumpy().astype("float32")


def extract_head(model: HybridBlock) -> HybridBlock:
    """Return a copy of the head as a model of its own, which takes feature vectors instead of images.

    It is initialised on the model's devices, cast to its dtype and compiled like it.
    """
    weight = model.output.weight
    head = Head(*weight.shape)
    head.initialize(ctx=weight.list_ctx())
    head.cast(weight.dtype)
    load_arrays(head, {name: array for name, array in to_arrays(model).items() if name.startswith("fc.")})
    compile_network(head)
    return head


def batch_norms(model: HybridBlock) -> dict[str, nn.BatchNorm]:
    """Return the BatchNorm layers by torchvision's name, such as `layer1.0.bn1`."""
    names = {parameter.name: name for name, parameter in named_parameters(model).items()}
    layers: dict[str, nn.BatchNorm] = {}

    def collect(block: Block) -> None:
        if isinstance(block, nn.BatchNorm):
            layers[names[block.running_var.name].removesuffix(".running_var")] = block

    model.apply(collect)
    return layers


def set_momentum(model: HybridBlock, spec: ExperimentSpec) -> None:
    """Set every BatchNorm layer's momentum to 1 - `spec.batch_norm_momentum`.

    Gluon's momentum is the share of the running statistics that stays; the spec's is the share of the batch. Where it
    changes, the network is compiled anew.
    """
    layers, keep = batch_norms(model).values(), 1 - spec.batch_norm_momentum
    if any(layer._kwargs["momentum"] != keep for layer in layers):
        for layer in layers:
            layer._kwargs["momentum"] = keep
        compile_network(model)


def set_mode(model: HybridBlock, phase: Phase) -> dict[str, nn.BatchNorm]:
    """Make the BatchNorm layers of a phase's frozen stages use their running statistics.

    Gluon has one training mode for the whole network, so each layer's `use_global_stats` is set; where one changes, the
    network is compiled anew.

    Args:
        model: The network to change.
        phase: The phase, which has the frozen stages.

    Returns:
        The other BatchNorm layers, whose running statistics move, by torchvision's name.
    """
    layers = batch_norms(model)
    frozen = {name: stage_of(name) in phase.frozen_statistics for name in layers}
    if any(layer._kwargs["use_global_stats"] != frozen[name] for name, layer in layers.items()):
        for name, layer in layers.items():
            layer._kwargs["use_global_stats"] = frozen[name]
        # The setting has become part of the compiled graph.
        compile_network(model)
    return {name: layer for name, layer in layers.items() if not frozen[name]}


@functools.cache
def stores_unbiased_variance(device: mx.Context, dtype: str) -> bool:
    """Return whether Gluon's BatchNorm moves its running variance by sum / (n - 1), as cuDNN does, and not by sum / n.

    MXNet does not say; so a layer is tried on the values -1 and 1. With momentum 0.9 its running variance, 1 at first,
    becomes 1.1 if it is unbiased and stays 1 otherwise.

    Args:
        device: The context to try it on.
        dtype: The dtype of the layer.
    """
    layer = nn.BatchNorm(in_channels=1)
    layer.initialize(ctx=device)
    layer.cast(dtype)
    with autograd.record():
        normalised = layer(np.array([-1, 1], dtype=dtype, ctx=device).reshape(2, 1, 1, 1))
    normalised.backward()
    return layer.running_var.data().item() > 1.05


def values_by_channel(model: HybridBlock, shape: tuple[int, ...]) -> dict[str, int]:
    """Return the number of values that a channel has in each BatchNorm layer: images * height * width.

    MXNet infers the shapes from the network's graph, without computing it.

    Args:
        model: The network.
        shape: (N, 3, H, W) of a batch of images.

    Returns:
        torchvision's name of the layer, such as `layer1.0.bn1` -> number of values.
    """
    graph = model(mx.sym.var("images").as_np_ndarray()).get_internals()
    _, shapes, _ = graph.infer_shape(images=shape)
    by_output = dict(zip(graph.list_outputs(), shapes, strict=True))
    outputs = {name: by_output[f"{layer.name}_fwd_output"] for name, layer in batch_norms(model).items()}
    return {name: batch * height * width for name, (batch, _, height, width) in outputs.items()}
