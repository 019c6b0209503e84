"""One step in MXNet, gradients, logits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import HybridBlock, nn
from mxnet.gluon.model_zoo.vision import ResNetV2
from numpy.typing import NDArray

from backends.mxnet.layers import (
    Exchange,
    exchange_of,
    set_mode,
    set_momentum,
    stores_unbiased_variance,
    values_by_channel,
)
from backends.mxnet.optimizer import make_optimizer, set_trained, trainable_parameters
from backends.mxnet.weights import named_parameters
from common.method.loss import target_table
from common.method.phases import Phase
from common.network import resnet
from common.spec.experiment import ExperimentSpec

# From log-probabilities: one loss an example; the backward pass of a vector differentiates its sum.
cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss(from_logits=True)
# The same against a row of target probabilities, or of their multiples.
cross_entropy_of_targets = gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False, from_logits=True)


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
        self.optimizer.set_learning_rate(rate_factor * self.phase.learning_rate)
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
        self, moving: dict[str, nn.BatchNorm], before: dict[str, np.ndarray], shape: tuple[int, ...]
    ) -> None:
        """Make the share of this batch in each running variance, sum / n, the unbiased sum / (n - 1)."""
        if shape not in self.counts:
            self.counts[shape] = values_by_channel(self.model, shape)
        keep = 1 - self.spec.batch_norm_momentum
        for name, layer in moving.items():
            variance = layer.running_var.data()
            variance += (variance - keep * before[name]) / max(self.counts[shape][name] - 1, 1)


def backward(
    model: HybridBlock, phase: Phase, images: np.ndarray, labels: np.ndarray, targets: Sequence[np.ndarray]
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], int]:
    """On each device the cross-entropies of its examples, their logits and labels, in training mode, and how many
    devices have the same examples; the parameters on a device get the gradients of the sum of its losses.

    targets: on each device, a row a class.
    """
    batches = list(zip(to_model(model, images), shard_batch(model, labels), targets, strict=True))
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
        losses = reduced_loss(log_probabilities, targets[labels])
    return losses, (cross_entropy(log_probabilities, labels), logits, labels)


def reduced_loss(log_probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the losses of the examples, (N,), whose sum MXNet differentiates; for the mean, the optimizer divides.

    Args:
        log_probabilities: (N, classes).
        targets: (N, classes) target probabilities, or multiples of them.
    """
    return cross_entropy_of_targets(log_probabilities, targets)


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
    return [share.astype(model.output.weight.dtype, copy=False) for share in shard_batch(model, images)]


def shard_batch(model: HybridBlock, batch: np.ndarray) -> list[np.ndarray]:
    """Equal shares of a batch's images or labels on the model's devices, or where they do not divide, all on each."""
    devices = model.output.weight.list_ctx()
    if len(batch) % len(devices) == 0:
        return gluon.utils.split_and_load(batch, devices)
    return [batch.as_in_ctx(device) for device in devices]


def gather(outputs: Sequence[np.ndarray], count: int) -> NDArray[numpy.floating]:
    """What the devices made of `count` images, once."""
    return numpy.concatenate([output.asnumpy() for output in outputs])[:count]
