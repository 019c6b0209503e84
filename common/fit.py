"""The epoch loop, the same for every framework: it feeds a backend's Trainer, counts exactly, and reports."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common import features, groups, pipeline
from common.errors import RunError
from common.features import BatchSource, FeatureStore
from common.folder import ImageData
from common.spec import ExperimentSpec

if TYPE_CHECKING:
    from backends.contract import Backend, Trainer

# A read of the loss waits for the device, so it happens every few steps only.
STEPS_BETWEEN_READS = 8


class Diverged(RunError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch. Losses are means over examples, accuracies fractions of examples, the last batch included."""

    epoch: int
    """Counted from 1."""
    phase: str
    loss: float
    """Cross-entropy in training mode while the parameters moved, without weight decay."""
    train_accuracy: float
    """Top-1 of the same passes."""
    test_loss: float
    test_accuracy: float
    seconds: float
    """Wall time of the training part, in seconds."""
    images_per_second: float
    """Training images by `seconds`."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of samples, in their order."""

    logits: NDArray[Any]
    """(samples, classes) float32 (float64 in a float64 experiment)."""
    labels: NDArray[np.int64]
    """(samples,)"""

    @property
    def accuracy(self) -> float:
        return float((self.logits.argmax(axis=1) == self.labels).mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # Adding 0.0 turns -0.0 into 0.0.
        return float(-log_probabilities[np.arange(len(self.labels)), self.labels].mean()) + 0.0


@dataclass
class History:
    """What training left: the metrics of every finished epoch and the predictions after the last."""

    epochs: list[EpochMetrics] = field(default_factory=list)
    test: Predictions | None = None


class Watch:
    """Is told how training goes. This one prints a line an epoch, like the book's; `scripts.run` shows more."""

    def on_start(self, steps: int) -> None:
        """Training begins; `steps` is the number of batches over all epochs, evaluation and features included."""

    def on_progress(self, steps: int, text: str) -> None:
        """`steps` more batches are done; `text` describes what is being done, with its speed."""

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """An epoch ended; `predictions` are those of the test samples."""
        print(describe(metrics))


def describe(metrics: EpochMetrics) -> str:
    """The line of an epoch."""
    return (
        f"epoch {metrics.epoch}, loss {metrics.loss:.3f}, train acc {metrics.train_accuracy:.3f}, "
        f"test acc {metrics.test_accuracy:.3f}"
    )


def fit(
    backend: Backend,
    model: Any,
    spec: ExperimentSpec,
    data: ImageData,
    param_group: bool = True,
    watch: Watch | None = None,
) -> History:
    """Train `model` in place through the phases of `spec` and evaluate it on the whole test set after each epoch.

    Raises Diverged when the loss is NaN or infinite. Whatever ends it, `watch` has seen every finished epoch.
    """
    watch = watch or Watch()
    transform = pipeline.transform_for(spec)
    batches = [math.ceil(len(samples) / spec.batch_size) for samples in (data.train, data.test)]
    phases = [phase for phase in groups.phases(spec, param_group) if phase.epochs]
    passes = spec.epochs + sum(features.reused(spec, phase) for phase in phases)
    watch.on_start(passes * sum(batches) or batches[1])
    history = History()
    for phase in phases:
        store = FeatureStore(backend, model, watch) if features.reused(spec, phase) else None
        trained, source = (store.head, store) if store else (model, pipeline)
        trainer = backend.Trainer(trained, spec, phase)
        for _ in range(phase.epochs):
            epoch = len(history.epochs) + 1
            loss, accuracy, seconds = train_epoch(backend, trainer, spec, transform, data, epoch, watch, source)
            if store:
                backend.load_arrays(model, backend.to_arrays(store.head))
            history.test = predict(backend, trained, spec, transform, data, watch, source)
            if not math.isfinite(history.test.loss):
                raise Diverged(diverged(f"the test loss is {history.test.loss} after epoch {epoch}", spec))
            metrics = EpochMetrics(
                epoch, phase.name, loss, accuracy, history.test.loss, history.test.accuracy, seconds,
                len(data.train) / seconds,
            )  # fmt: skip
            history.epochs.append(metrics)
            watch.on_epoch(metrics, history.test)
    if history.test is None:
        history.test = predict(backend, model, spec, transform, data, watch, pipeline)
    return history


def diverged(what: str, spec: ExperimentSpec) -> str:
    """The message of a run that diverged."""
    return (
        f"{what}: training diverged. Choose a smaller --learning-rate (it was {spec.learning_rate:g} with the "
        f"{spec.loss_reduction} of the losses, {spec.mean_learning_rate:g} as for their mean)"
    )


def train_epoch(
    backend: Backend,
    trainer: Trainer,
    spec: ExperimentSpec,
    transform: pipeline.Transform,
    data: ImageData,
    epoch: int,
    watch: Watch,
    source: BatchSource,
) -> tuple[float, float, float]:
    """One pass over the training samples: mean loss, accuracy and seconds."""
    start = time.perf_counter()
    loss_sum, correct, seen, unread = 0.0, 0, 0, 0
    steps = math.ceil(len(data.train) / spec.batch_size)
    for step, (images, labels) in enumerate(train_batches(backend, spec, transform, data, epoch, source), start=1):
        trainer.train_step(images, labels)
        seen += len(labels)
        unread += 1
        if unread == STEPS_BETWEEN_READS or step == steps:
            new_loss, new_correct = trainer.read_sums()
            loss_sum, correct = loss_sum + new_loss, correct + new_correct
            if not math.isfinite(loss_sum):
                where = f"the loss became {new_loss} in epoch {epoch}, by step {step} of {steps}"
                raise Diverged(diverged(where, spec))
            speed = seen / (time.perf_counter() - start)
            watch.on_progress(unread, f"epoch {epoch}/{spec.epochs}: training, {speed:.1f} images/s")
            unread = 0
    if seen != len(data.train):
        raise RunError(f"the input pipeline gave {seen} of {len(data.train)} training images in epoch {epoch}")
    return loss_sum / seen, correct / seen, time.perf_counter() - start


def predict(
    backend: Backend,
    model: Any,
    spec: ExperimentSpec,
    transform: pipeline.Transform,
    data: ImageData,
    watch: Watch,
    source: BatchSource,
) -> Predictions:
    """The model's logits for every test sample, in order."""
    start = time.perf_counter()
    logits: list[NDArray[Any]] = []
    labels: list[NDArray[np.int64]] = []
    seen = 0
    for images, batch_labels in test_batches(backend, spec, transform, data, source):
        logits.append(backend.logits(model, images))
        labels.append(np.asarray(batch_labels, np.int64))
        seen += len(labels[-1])
        watch.on_progress(1, f"testing, {seen / (time.perf_counter() - start):.1f} images/s")
    result = Predictions(np.concatenate(logits), np.concatenate(labels))
    expected = [sample.label for sample in data.test]
    if result.labels.tolist() != expected:
        raise RunError(f"the input pipeline gave {seen} of {len(expected)} test images, or gave them out of order")
    return result


def train_batches(
    backend: Backend,
    spec: ExperimentSpec,
    transform: pipeline.Transform,
    data: ImageData,
    epoch: int,
    source: BatchSource,
) -> Iterator[tuple[Any, Any]]:
    """An epoch of shuffled, augmented training batches as the backend's Trainer takes them."""
    if spec.pipeline == "native":
        yield from backend.native_train_batches(spec, transform, data.train, epoch)
        return
    for images, labels in source.train_batches(spec, transform, data.train, epoch):
        yield backend.from_shared(images, labels)


def test_batches(
    backend: Backend,
    spec: ExperimentSpec,
    transform: pipeline.Transform,
    data: ImageData,
    source: BatchSource,
) -> Iterator[tuple[Any, NDArray[np.int64]]]:
    """The test samples in order: images as the backend takes them, labels as NumPy."""
    if spec.pipeline == "native":
        for images, labels in backend.native_test_batches(spec, transform, data.test):
            yield images, np.asarray(labels, np.int64)
        return
    for images, labels in source.test_batches(spec, transform, data.test):
        yield backend.from_shared(images, labels)[0], labels
