"""The training step, gradients and logits in MXNet.

`autograd.record` records a forward pass in training mode; outside it Gluon computes in evaluation mode.
"""

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

# Both take log-probabilities and give one loss an example; the backward pass of a vector differentiates its sum.
cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss(from_logits=True)
# This one compares with a row of target probabilities, or of multiples of them, in the place of a label.
cross_entropy_of_targets = gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False, from_logits=True)


class Trainer:
    """Train one model through one phase with `autograd.record` and a Gluon Trainer.

    A trained parameter that is in no group or in two ends in a RuntimeError when the Trainer is made.
    """

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
        """Record the forward pass, go backward on every device and let Gluon's `Trainer.step(n)` update the parameters.

        The backward pass overwrites the gradients (`grad_req` = "write"), so nothing sets them to zero.
        `Trainer.step(n)` adds the gradients of all devices, divides them by n and updates: n is 1 for `loss_reduction`
        = sum and the number of images for mean, times the number of devices that had the same images. MXNet queues all
        of it and returns before it is computed.

        Args:
            images: (N, 3, H, W), the whole batch, which is shared out here.
            labels: (N,).
            rate_factor: Multiple of all learning rates in this step.
        """
        moving = set_mode(self.model, self.phase)
        before = {name: layer.running_var.list_data()[0].copy() for name, layer in moving.items()}
        results, copies = backward(self.model, self.phase, images, labels, self.targets)
        self.optimizer.set_learning_rate(rate_factor * self.phase.learning_rate)
        # Trainer.step adds the gradients of all devices, each of a sum of losses, and divides by its argument.
        self.optimizer.step(copies * (1 if self.spec.loss_reduction == "sum" else len(labels)))
        if moving and self.unbias:
            self.unbias_variances(moving, before, images.shape)
        for losses, logits, answers in results[: len(results) // copies]:
            self.loss_sum += losses.sum(dtype="float64").as_in_ctx(self.devices[0])
            self.correct += (logits.argmax(axis=1) == answers).sum().as_in_ctx(self.devices[0])

    def read_sums(self) -> tuple[float, int]:
        """Wait for the devices, return the sum of losses and the number of correct answers, and set both to zero."""
        sums = self.loss_sum.item(), int(self.correct.item())
        self.loss_sum[()] = 0
        self.correct[()] = 0
        return sums

    def unbias_variances(
        self, moving: dict[str, nn.BatchNorm], before: dict[str, np.ndarray], shape: tuple[int, ...]
    ) -> None:
        """Replace the biased variance of this batch in each running variance by the unbiased one.

        MXNet has moved r <- keep * r + m * sum / n. Adding (r - keep * r_before) / (n - 1) makes it m * sum / (n - 1).

        Args:
            moving: The BatchNorm layers whose running statistics move, by torchvision's name.
            before: Their running variances before the step.
            shape: (N, 3, H, W) of the batch's images.
        """
        if shape not in self.counts:
            self.counts[shape] = values_by_channel(self.model, shape)
        keep = 1 - self.spec.batch_norm_momentum
        for name, layer in moving.items():
            variance = layer.running_var.data()
            variance += (variance - keep * before[name]) / max(self.counts[shape][name] - 1, 1)


def backward(
    model: HybridBlock, phase: Phase, images: np.ndarray, labels: np.ndarray, targets: Sequence[np.ndarray]
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], int]:
    """Run the forward and backward pass of a batch on the model's devices, in training mode.

    On each device the parameters get the gradients of the sum of that device's losses. Where BatchNorm layers are
    synchronised and the devices share the batch, each device's forward pass has a thread of its own, so that they can
    wait for each other.

    Args:
        model: The network.
        phase: The phase, which says what has frozen statistics.
        images: (N, 3, H, W), the whole batch.
        labels: (N,).
        targets: The table of targets on each device, one row for each class.

    Returns:
        For each device the plain cross-entropies of its examples, their logits and their labels; and how many devices
        had the same examples: 1 if the devices share the batch, otherwise the number of devices.
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
    """Run `forward` on one of several devices that wait for each other; if it fails, end the others' waiting."""
    try:
        return forward(*arguments)
    except BaseException:
        exchange.barrier.abort()
        raise


def forward(
    model: HybridBlock, phase: Phase, images: np.ndarray, labels: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Run the forward pass on one device inside `autograd.record`.

    Args:
        model: The network.
        phase: The phase, which says what has frozen statistics.
        images: (N, 3, H, W), the images of this device.
        labels: (N,), their labels.
        targets: (classes, classes): row k holds the targets of class k.

    Returns:
        The losses against the targets, (N,), for the backward pass; and the plain cross-entropies, (N,), the logits,
        (N, classes), and the labels.
    """
    if isinstance(model, ResNetV2) and "stem" not in phase.frozen_statistics:
        # bn0 has no trained gamma that the backward pass would have to reach; a gradient of the images leads it there.
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
    batch: tuple[np.ndarray, np.ndarray],
    class_counts: Sequence[int] | None = None,
) -> dict[str, NDArray]:
    """Return the gradient of the loss, without weight decay, by torchvision's name of the trained parameter.

    The step is in training mode with `phase.frozen_statistics`. MXNet's backward pass moves running statistics, so they
    are copied before and put back afterwards. The devices' gradients are added and divided as `Trainer.step` does.

    Args:
        model: The network.
        spec: The experiment: loss, class weights and label smoothing.
        phase: The phase, which says what trains.
        batch: Images (N, 3, H, W) and labels (N,) of the whole batch.
        class_counts: Training images of each class, for balanced class weights.

    Returns:
        Arrays in torchvision's layout, which is Gluon's too.
    """
    images, labels = batch
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
    """Return the logits in evaluation mode, (N, classes), in which Gluon computes outside `autograd.record`."""
    return gather([model(share) for share in to_model(model, images)], len(images))


def feature_extractor(model: HybridBlock) -> Callable[[np.ndarray], NDArray[numpy.float32]]:
    """Return a function that computes the head's input from a batch of images, (N, features) float32.

    It runs the network's `features` in evaluation mode and holds no copies.
    """

    def extract(images: np.ndarray) -> NDArray[numpy.float32]:
        vectors = gather([model.features(share) for share in to_model(model, images)], len(images))
        return vectors.reshape(len(vectors), -1).astype("float32", copy=False)

    return extract


def targets_on(model: HybridBlock, spec: ExperimentSpec, class_counts: Sequence[int] | None) -> list[np.ndarray]:
    """Return the table of targets on each of a model's devices, in the dtype of its parameters."""
    weight = model.output.weight
    return [np.array(target_table(spec, class_counts), dtype=weight.dtype, ctx=ctx) for ctx in weight.list_ctx()]


def to_model(model: HybridBlock, images: np.ndarray) -> list[np.ndarray]:
    """Share images out to the model's devices, in the dtype of its parameters."""
    return [share.astype(model.output.weight.dtype, copy=False) for share in shard_batch(model, images)]


def shard_batch(model: HybridBlock, batch: np.ndarray) -> list[np.ndarray]:
    """Split a batch's images or labels evenly among the model's devices; if that is impossible, copy all to each."""
    devices = model.output.weight.list_ctx()
    if len(batch) % len(devices) == 0:
        return gluon.utils.split_and_load(batch, devices)
    return [batch.as_in_ctx(device) for device in devices]


def gather(outputs: Sequence[np.ndarray], count: int) -> NDArray[numpy.floating]:
    """Join the devices' rows to one array of `count` rows; if each device had all images, the first one's remain."""
    return numpy.concatenate([output.asnumpy() for output in outputs])[:count]
