"""Fine-tuning in MXNet: learning rates by parameter, one step, gradients, logits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

import mxnet as mx
import numpy
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import Block, HybridBlock, Parameter
from mxnet.gluon.model_zoo.vision import ResNetV2
from mxnet.gluon.nn import BatchNorm
from numpy.typing import NDArray

import backends.mxnet
from backends.mxnet.models import Exchange, compile_network, exchange_of
from backends.mxnet.weights import named_parameters
from common.contract.results import History
from common.contract.watch import Watch
from common.data.folder import ImageData
from common.method.loss import target_table
from common.method.phases import Phase
from common.network import resnet
from common.network.stages import by_stage, stage_of
from common.spec.experiment import ExperimentSpec
from common.training import loop

# From log-probabilities: one loss an example; the backward pass of a vector differentiates its sum.
cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss(from_logits=True)
# The same against a row of target probabilities, or of their multiples.
cross_entropy_of_targets = gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False, from_logits=True)


def train_fine_tuning(
    model: HybridBlock, spec: ExperimentSpec, data: ImageData, param_group: bool = True, watch: Watch | None = None
) -> History:
    """See `common.contract.backend.Backend.train_fine_tuning`."""
    return loop.fit(backends.mxnet, model, spec, data, param_group, watch)


class Trainer:
    """See `common.contract.backend.Trainer`."""

    def __init__(
        self, model: HybridBlock, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        self.model, self.spec, self.phase = model, spec, phase
        self.devices = model.output.weight.list_ctx()
        set_trained(model, phase)
        set_momentum(model, spec)
        self.optimizer = make_optimizer(model, spec, phase)
        several = len(self.devices) > 1
        self.unbias = not several and not stores_unbiased_variance(self.devices[0], model.output.weight.dtype)
        self.counts: dict[tuple[int, ...], dict[str, int]] = {}
        self.targets = targets_on(model, spec, class_counts)
        self.loss_sum = np.zeros((), dtype="float64", ctx=self.devices[0])
        self.correct = np.zeros((), dtype="int64", ctx=self.devices[0])

    def train_step(self, images: np.ndarray, labels: np.ndarray, rate_factor: float = 1.0) -> None:
        """See `common.contract.backend.Trainer.train_step`."""
        moving = set_mode(self.model, self.phase)
        before = {name: layer.running_var.list_data()[0].copy() for name, layer in moving.items()}
        results, copies = backward(self.model, self.phase, images, labels, self.targets)
        self.optimizer.set_learning_rate(rate_factor * self.spec.learning_rate)
        # Trainer.step adds the gradients of the sums on all devices and divides by its argument.
        self.optimizer.step(copies * (1 if self.spec.loss_reduction == "sum" else len(labels)))
        if moving and self.unbias:
            self.unbias_variances(moving, before, images.shape)
        for losses, logits, answers in results[: len(results) // copies]:
            self.loss_sum += losses.sum(dtype="float64").as_in_ctx(self.devices[0])
            self.correct += (logits.argmax(axis=1) == answers).sum().as_in_ctx(self.devices[0])

    def read_sums(self) -> tuple[float, int]:
        """See `common.contract.backend.Trainer.read_sums`."""
        sums = self.loss_sum.item(), int(self.correct.item())
        self.loss_sum[()] = 0
        self.correct[()] = 0
        return sums

    def unbias_variances(
        self, moving: dict[str, BatchNorm], before: dict[str, np.ndarray], shape: tuple[int, ...]
    ) -> None:
        """Make the share of this batch in each running variance, sum / n, the unbiased sum / (n - 1)."""
        if shape not in self.counts:
            self.counts[shape] = values_by_channel(self.model, shape)
        keep = 1 - self.spec.batch_norm_momentum
        for name, layer in moving.items():
            variance = layer.running_var.data()
            variance += (variance - keep * before[name]) / max(self.counts[shape][name] - 1, 1)


class Momentum(mx.optimizer.Optimizer):
    """Descent with momentum 0.9 and the learning rate outside the buffer, as in torch; that of MXNet's SGD is inside,
    where a rate that changes acts on later steps too."""

    def create_state(self, index: int, weight: np.ndarray) -> np.ndarray:
        return weight.zeros_like()

    def update(self, index: int, weight: np.ndarray, grad: np.ndarray, state: np.ndarray) -> None:
        self._update_count(index)
        state *= 0.9
        state += self.rescale_grad * grad + self._get_wd(index) * weight
        weight -= self._get_lr(index) * state


class Adam(mx.optimizer.Adam):
    """Adam with epsilon beside the square root of the corrected second moment; MXNet's is beside the uncorrected."""

    def __init__(self, **options: float) -> None:
        # The kernel rounds beta to float32; the bias correction must use the number that the kernel uses.
        super().__init__(beta1=float(numpy.float32(0.9)), beta2=float(numpy.float32(0.999)), **options)

    def update(self, index: int, weight: np.ndarray, grad: np.ndarray, state: tuple[np.ndarray, np.ndarray]) -> None:
        step = self._index_update_count.get(index, self.begin_num_update) + 1
        self.epsilon = 1e-8 * math.sqrt(1 - self.beta2**step)
        super().update(index, weight, grad, state)


def make_optimizer(model: HybridBlock, spec: ExperimentSpec, phase: Phase) -> gluon.Trainer:
    """An optimizer with a learning rate for each trained stage; raises RuntimeError for a parameter in none."""
    parameters = trainable_parameters(model)
    stages = by_stage(filter(phase.trains, parameters))
    grouped = [name for stage in phase.trained_stages for name in stages[stage]]
    trained = [name for name in parameters if phase.trains(name)]
    if sorted(grouped) != sorted(trained):
        raise RuntimeError("each trained parameter must be in exactly one parameter group")
    for stage in phase.trained_stages:
        for name in stages[stage]:
            parameters[name].lr_mult = phase.multiples[stage]
    options = {"learning_rate": spec.learning_rate, "wd": spec.weight_decay}
    optimizers = {"sgd": mx.optimizer.SGD, "momentum": Momentum, "adam": Adam}
    optimizer = optimizers[spec.optimizer](**options)
    devices = model.output.weight.list_ctx()
    store = None if len(devices) == 1 else "local" if devices[0].device_type == "cpu" else "device"
    # The optimizers here are Python's, which compute beside the parameters and not in the store.
    return gluon.Trainer([parameters[name] for name in grouped], optimizer, kvstore=store, update_on_kvstore=False)


def trainable_parameters(model: HybridBlock) -> dict[str, Parameter]:
    """What can learn, by torchvision's name: not bn0.weight and bn0.bias, which Gluon holds at 1 and 0."""
    fixed = ("bn0.weight", "bn0.bias")
    parameters = named_parameters(model).items()
    return {name: p for name, p in parameters if not resnet.is_statistic(name) and name not in fixed}


def batch_norms(model: HybridBlock) -> dict[str, BatchNorm]:
    """The BatchNorm layers by torchvision's name, such as `layer1.0.bn1`."""
    names = {parameter.name: name for name, parameter in named_parameters(model).items()}
    layers: dict[str, BatchNorm] = {}

    def collect(block: Block) -> None:
        if isinstance(block, BatchNorm):
            layers[names[block.running_var.name].removesuffix(".running_var")] = block

    model.apply(collect)
    return layers


def set_trained(model: HybridBlock, phase: Phase) -> None:
    """Freeze what does not train in a phase."""
    # MXNet moves statistics where the backward pass arrives, so it has to arrive at gamma even where gamma is frozen.
    moving = [f"{name}.weight" for name in batch_norms(model) if stage_of(name) not in phase.frozen_statistics]
    for name, parameter in trainable_parameters(model).items():
        parameter.grad_req = "write" if phase.trains(name) or name in moving else "null"


def set_momentum(model: HybridBlock, spec: ExperimentSpec) -> None:
    """Give a batch the share of the running statistics that the spec says; Gluon counts what stays."""
    layers, keep = batch_norms(model).values(), 1 - spec.batch_norm_momentum
    if any(layer._kwargs["momentum"] != keep for layer in layers):
        for layer in layers:
            layer._kwargs["momentum"] = keep
        compile_network(model)


def set_mode(model: HybridBlock, phase: Phase) -> dict[str, BatchNorm]:
    """Give the BatchNorm layers whose statistics are frozen their running ones, and return the others by name."""
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
    """Whether BatchNorm updates its running variance by sum / (n - 1), as cuDNN does, and not by sum / n: try it."""
    layer = BatchNorm(in_channels=1)
    layer.initialize(ctx=device)
    layer.cast(dtype)
    with autograd.record():
        normalised = layer(np.array([-1, 1], dtype=dtype, ctx=device).reshape(2, 1, 1, 1))
    normalised.backward()
    return layer.running_var.data().item() > 1.05


def values_by_channel(model: HybridBlock, shape: tuple[int, ...]) -> dict[str, int]:
    """How many values a channel of each BatchNorm layer's input has, for images of `shape` (N, 3, H, W)."""
    graph = model(mx.sym.var("images").as_np_ndarray()).get_internals()
    _, shapes, _ = graph.infer_shape(images=shape)
    by_output = dict(zip(graph.list_outputs(), shapes, strict=True))
    outputs = {name: by_output[f"{layer.name}_fwd_output"] for name, layer in batch_norms(model).items()}
    return {name: batch * height * width for name, (batch, _, height, width) in outputs.items()}


def backward(
    model: HybridBlock, phase: Phase, images: np.ndarray, labels: np.ndarray, targets: Sequence[np.ndarray]
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], int]:
    """On each device the cross-entropies of its examples, their logits and labels, in training mode, and how many
    devices have the same examples; the parameters on a device get the gradients of the sum of its losses.

    targets: on each device, a row a class.
    """
    batches = list(zip(to_model(model, images), share_out(model, labels), targets, strict=True))
    copies = sum(len(share) for _, share, _ in batches) // len(labels)
    exchange = exchange_of(model)
    if exchange is not None:
        exchange.together = copies == 1
    if exchange is not None and exchange.together:
        with ThreadPool(len(batches), npx.set_np) as threads:
            results = threads.starmap(functools.partial(forward_together, exchange, model, phase), batches)
    else:
        results = [forward(model, phase, *batch) for batch in batches]
    autograd.backward([losses for losses, _ in results])
    return [said for _, said in results], copies


def forward_together(exchange: Exchange, *arguments: Any) -> Any:
    """`forward` on one of several devices that wait for each other; its failure ends the others' waiting."""
    try:
        return forward(*arguments)
    except BaseException:
        exchange.barrier.abort()
        raise


def forward(
    model: HybridBlock, phase: Phase, images: np.ndarray, labels: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """On one device the losses against `targets`, for the backward pass, and what `backward` returns."""
    if isinstance(model, ResNetV2) and "stem" not in phase.frozen_statistics:
        # Its bn0 has no trained gamma that would draw the backward pass to it; the images do.
        images = images.detach()
        images.attach_grad()
    with autograd.record():
        logits = model(images)
        # Naming the temperature chooses MXNet's own log_softmax; oneDNN's is ten times less exact on a CPU.
        log_probabilities = npx.log_softmax(logits, temperature=1.0)
        losses = cross_entropy_of_targets(log_probabilities, targets[labels])
    return losses, (cross_entropy(log_probabilities, labels), logits, labels)


def gradients(
    model: HybridBlock,
    spec: ExperimentSpec,
    phase: Phase,
    images: np.ndarray,
    labels: np.ndarray,
    class_counts: Sequence[int] | None = None,
) -> dict[str, NDArray]:
    """See `common.contract.backend.Backend.gradients`."""
    statistics = {
        p: p.list_data()[0].copy() for name, p in named_parameters(model).items() if resnet.is_statistic(name)
    }
    set_trained(model, phase)
    set_mode(model, phase)
    _, copies = backward(model, phase, images, labels, targets_on(model, spec, class_counts))
    for parameter, values in statistics.items():
        parameter.set_data(values)
    count = copies * (1 if spec.loss_reduction == "sum" else len(labels))
    parameters = trainable_parameters(model).items()
    trained = {name: p for name, p in parameters if phase.trains(name)}
    return {name: sum(grad.asnumpy() for grad in p.list_grad()) / count for name, p in trained.items()}


def logits(model: HybridBlock, images: np.ndarray) -> NDArray[numpy.floating]:
    """See `common.contract.backend.Backend.logits`: outside autograd.record, Gluon computes in evaluation mode."""
    return gather([model(share) for share in to_model(model, images)], len(images))


def feature_extractor(model: HybridBlock) -> Callable[[np.ndarray], NDArray[numpy.float32]]:
    """See `common.contract.backend.Backend.feature_extractor`."""

    def extract(images: np.ndarray) -> NDArray[numpy.float32]:
        vectors = gather([model.features(share) for share in to_model(model, images)], len(images))
        return vectors.reshape(len(vectors), -1).astype("float32", copy=False)

    return extract


def targets_on(model: HybridBlock, spec: ExperimentSpec, class_counts: Sequence[int] | None) -> list[np.ndarray]:
    """The table of targets on each of a model's devices, in its precision."""
    weight = model.output.weight
    return [np.array(target_table(spec, class_counts), dtype=weight.dtype, ctx=ctx) for ctx in weight.list_ctx()]


def to_model(model: HybridBlock, images: np.ndarray) -> list[np.ndarray]:
    """Images on the model's devices and in its precision, shared out."""
    return [share.astype(model.output.weight.dtype, copy=False) for share in share_out(model, images)]


def share_out(model: HybridBlock, batch: np.ndarray) -> list[np.ndarray]:
    """Equal shares of a batch's images or labels on the model's devices, or where they do not divide, all on each."""
    devices = model.output.weight.list_ctx()
    if len(batch) % len(devices) == 0:
        return gluon.utils.split_and_load(batch, devices)
    return [batch.as_in_ctx(device) for device in devices]


def gather(outputs: Sequence[np.ndarray], count: int) -> NDArray[numpy.floating]:
    """What the devices made of `count` images, once."""
    return numpy.concatenate([output.asnumpy() for output in outputs])[:count]
