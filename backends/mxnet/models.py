"""The source network, the network to fine-tune and the network to train from scratch, from Gluon's model zoo."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import mxnet as mx
from mxnet import autograd, np
from mxnet.gluon import Block, HybridBlock, nn
from mxnet.gluon.model_zoo import model_store, vision
from numpy.typing import NDArray

from backends.mxnet.runtime import find_devices
from backends.mxnet.weights import Head, load_arrays, named_parameters, to_arrays
from common.contract.backend import Models
from common.devices import precision
from common.network import lora, resnet, sources
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# torchvision's ResNet-18 is Gluon's first version; the second, which the chapter uses, normalises before it convolves.
ZOO_NAMES = {"resnet18": "resnet18_v1", "resnet18_v2": "resnet18_v2"}


def build_models(spec: ExperimentSpec) -> Models:
    """See `common.contract.backend.Backend.build_models`."""
    pretrained = fine_tune = None
    if spec.weights != "none":
        pretrained = build_source(spec)
        fine_tune = build_network(spec, spec.classes)
        # The chapter shares `features` between the two networks, so that training one trains the other: copy instead.
        source = to_arrays(pretrained)
        load_arrays(fine_tune, {name: source[name] for name in source if not name.startswith("fc.")})
        if spec.initial_values == "shared":
            load_arrays(fine_tune, resnet.initial_head(spec.model, spec.classes, spec.seed))
        if spec.strategy == "lora":
            add_adapters(fine_tune, spec)
    scratch = build_network(spec, spec.classes)
    if spec.initial_values == "shared":
        load_arrays(scratch, resnet.initial_network(spec.model, spec.classes, spec.seed))
    for model in (pretrained, fine_tune, scratch):
        if model is not None:
            model.cast(precision.parameter_type(spec))
            devices = find_devices(spec)
            model.collect_params().reset_ctx(devices)
            if len(devices) > 1:
                synchronise(model, devices)
            compile_network(model)
    return Models(pretrained, fine_tune, scratch)


def build_network(spec: ExperimentSpec, classes: int) -> HybridBlock:
    """A network with Gluon's initial values, Xavier's uniform ones for every weight, on the CPU."""
    model = vision.get_model(ZOO_NAMES[spec.model], classes=classes)
    # Gluon would learn its channels from the first batch; with the shapes at hand it need not wait for one.
    shapes = resnet.shapes(spec.model, classes)
    for name, parameter in named_parameters(model).items():
        parameter.shape = shapes[name]
    model.initialize(mx.init.Xavier())
    return model


class AdaptedConv2D(nn.Conv2D):
    """Gluon's layer, which adds its adapter (common.network.lora) to its weight whenever it is used."""

    def add_adapter(self, rank: int, scale: float) -> None:
        """Give a layer that has its shape an adapter of zeros."""
        outputs, *inputs = self.weight.shape
        self.scale = scale
        self.lora_a = self.params.get("lora_a", shape=(rank, *inputs), init="zeros")
        self.lora_b = self.params.get("lora_b", shape=(outputs, rank), init="zeros")
        self.lora_a.initialize()
        self.lora_b.initialize()

    def hybrid_forward(
        self, F: Any, x: np.ndarray, weight: np.ndarray, lora_a: np.ndarray, lora_b: np.ndarray
    ) -> np.ndarray:
        merged = weight + self.scale * F.np.tensordot(lora_b, lora_a, axes=1)
        return super().hybrid_forward(F, x, merged)


class Exchange:
    """Where the devices of a model, each in a thread of its own, hand each other arrays in a forward pass."""

    def __init__(self, devices: list[mx.Context]) -> None:
        self.devices, self.barrier = devices, threading.Barrier(len(devices), timeout=600)
        self.given: list[Any] = [None] * len(devices)
        self.together = True
        """Whether each device has a share of the batch, and not all of it."""

    @property
    def count(self) -> int:
        """How many devices' shares make the batch."""
        return len(self.devices) if self.together else 1

    def mean(self, value: np.ndarray) -> np.ndarray:
        """The mean over all shares of what each gives; its gradient, too, goes to all."""
        if not self.together:
            return value
        self.given[self.devices.index(value.ctx)] = value
        self.barrier.wait()
        total = sum(given.as_in_ctx(value.ctx) for given in self.given)
        # Nobody gives the next before all have taken this one.
        self.barrier.wait()
        return total / self.count


class SynchronisedBatchNorm(nn.BatchNorm):
    """Gluon's layer, which learns from the shares of all devices, and stores the unbiased variance.

    MXNet's own operator for it, contrib.SyncBatchNorm, stops for ever on CPUs where one such layer follows another.
    """

    def hybrid_forward(self, F: Any, x: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
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
    """Make every BatchNorm layer of a model one over several devices."""
    exchange = Exchange(devices)

    def change(block: Block) -> None:
        if isinstance(block, nn.BatchNorm):
            # Gluon has no other way, as with the adapters.
            block.__class__ = SynchronisedBatchNorm
            block.exchange = exchange

    model.apply(change)


def exchange_of(model: HybridBlock) -> Exchange | None:
    """Where the devices of a model exchange what its BatchNorm layers learn from; None where none of them does."""
    layers: list[Block] = []
    model.apply(layers.append)
    learning = (b for b in layers if isinstance(b, SynchronisedBatchNorm) and not b._kwargs["use_global_stats"])
    return next((layer.exchange for layer in learning), None)


def add_adapters(model: HybridBlock, spec: ExperimentSpec) -> None:
    """Put an adapter beside every convolution (common.network.lora)."""

    def adapt(block: Block) -> None:
        if isinstance(block, nn.Conv2D):
            # Gluon has no other way to change a layer that is part of a network already.
            block.__class__ = AdaptedConv2D
            block.add_adapter(spec.lora_rank, spec.lora_scale)

    model.apply(adapt)
    model.lora_scale = spec.lora_scale
    load_arrays(model, lora.initial(spec.model, spec.lora_rank, spec.seed))


def build_source(spec: ExperimentSpec) -> HybridBlock:
    """The source network with its numbers, on the CPU."""
    if spec.weights == "imagenet":
        model = build_network(spec, resnet.SOURCE_CLASSES)
        model.load_parameters(str(download(ZOO_NAMES[spec.model])))
        return model
    checkpoint = sources.read_for(spec)
    assert checkpoint is not None
    model = build_network(spec, len(checkpoint.header.class_names))
    load_arrays(model, checkpoint.arrays)
    return model


def download(zoo_name: str) -> Path:
    """The file of a network of the model zoo, whose SHA-1 Gluon checks; downloaded if it is not there yet."""
    file = Path(mx.base.data_dir(), "models", f"{zoo_name}-{model_store.short_hash(zoo_name)}.params")
    if not file.exists():
        print(f"downloading {file.name} from Gluon's model zoo", file=sys.stderr)
    try:
        # Gluon prints every failed attempt in full.
        with contextlib.redirect_stdout(io.StringIO()):
            return Path(model_store.get_model_file(zoo_name, root=str(file.parent)))
    except (OSError, RuntimeError, ValueError, BadZipFile) as error:
        reason = error if isinstance(error, ValueError) else type(error).__name__
        raise UserError(
            f"weights = 'imagenet': Gluon could not download {zoo_name} ({reason}). Where there is no network, use "
            f"--weights distilled with --model resnet18, or put {file.name} into {file.parent}; "
            "the environment variable MXNET_GLUON_REPO names another server"
        ) from error


def compile_network(model: HybridBlock) -> None:
    """Let MXNet run the network as one graph whose memory it plans ahead, anew for a batch of another size. Not where
    a layer learns from several devices: then it runs operation by operation."""
    # With static_shape too, reading running statistics does not wait for the backward pass that writes them.
    model.hybridize(exchange_of(model) is None, static_alloc=True)


def head_shape(model: HybridBlock) -> tuple[int, ...]:
    """See `common.contract.backend.Backend.head_shape`: (classes, features) in Gluon."""
    return tuple(model.output.weight.shape)


def class_weight(model: HybridBlock, index: int) -> NDArray:
    """See `common.contract.backend.Backend.class_weight`."""
    return model.output.weight.list_data()[0][index].asnumpy().astype("float32")


def head_of(model: HybridBlock) -> HybridBlock:
    """See `common.contract.backend.Backend.head_of`."""
    weight = model.output.weight
    head = Head(*weight.shape)
    head.initialize(ctx=weight.list_ctx())
    head.cast(weight.dtype)
    load_arrays(head, {name: array for name, array in to_arrays(model).items() if name.startswith("fc.")})
    compile_network(head)
    return head
