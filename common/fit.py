"""The epoch loop, the same for every framework: it feeds a backend's Trainer, counts exactly, and reports."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common import features, groups, loss, pipeline, resident, schedules
from common.errors import RunError
from common.features import BatchSource, FeatureStore
from common.folder import ImageData, Sample
from common.selection import Selection
from common.spec import ExperimentSpec

if TYPE_CHECKING:
    from backends.contract import Backend, Trainer

# A read of the loss waits for the device, so it happens every few steps only.
STEPS_BETWEEN_READS = 8


class Diverged(RunError):
    """The loss became NaN or infinite."""


class Stopped(RunError):
    """A Watch ended the run before its last epoch, as a sweep does that sees no promise in it."""


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch. Losses are means over examples, accuracies fractions of examples, the last batch included."""

    epoch: int
    """Counted from 1."""
    phase: str
    loss: float
    """Cross-entropy in training mode while the parameters moved: without weight decay, class weights and label
    smoothing, so that runs compare."""
    train_accuracy: float
    """Top-1 of the same passes."""
    test_loss: float
    test_accuracy: float
    seconds: float
    """Wall time of the training part, in seconds."""
    images_per_second: float
    """Training images by `seconds`."""
    validation_loss: float | None = None
    """On the images held back from training; None without any."""
    validation_accuracy: float | None = None


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
        # Of logits that are not finite it is NaN, which says enough.
        with np.errstate(invalid="ignore"):
            shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # Adding 0.0 turns -0.0 into 0.0.
        return float(-log_probabilities[np.arange(len(self.labels)), self.labels].mean()) + 0.0


@dataclass
class History:
    """What training left: the metrics of every finished epoch, and the predictions of the model that was kept."""

    epochs: list[EpochMetrics] = field(default_factory=list)
    test: Predictions | None = None
    validation: Predictions | None = None
    """None without validation images."""
    kept_epoch: int | None = None
    """The epoch after which the model was as it is kept; None without epochs."""
    stopped_early: bool = False
    features: dict[str, int] | None = None
    """Images whose features were computed, and whose features were read; None where features were not reused."""


class Watch:
    """Is told how training goes. This one prints a line an epoch, like the book's; `scripts.run` shows more."""

    def on_note(self, text: str) -> None:
        """Something was decided for the user; `text` is a line that says what and why."""
        print(text)

    def on_start(self, steps: int) -> None:
        """Training begins; `steps` is the number of batches over all epochs, evaluation and features included."""

    def on_progress(self, steps: int, text: str) -> None:
        """`steps` more batches are done; `text` describes what is being done, with its speed."""

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """An epoch ended; `predictions` are those of the test samples."""
        print(describe(metrics))


class Quiet(Watch):
    """Says nothing of epochs."""

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        pass


class Silent(Quiet):
    """Says nothing at all."""

    def on_note(self, text: str) -> None:
        pass


class ForwardingWatch(Watch):
    """Passes everything on to another watch; for watches that do something besides."""

    def __init__(self, shown: Watch) -> None:
        self.shown = shown

    def on_note(self, text: str) -> None:
        self.shown.on_note(text)

    def on_start(self, steps: int) -> None:
        self.shown.on_start(steps)

    def on_progress(self, steps: int, text: str) -> None:
        self.shown.on_progress(steps, text)

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        self.shown.on_epoch(metrics, predictions)


def describe(metrics: EpochMetrics) -> str:
    """The line of an epoch."""
    validation = "" if metrics.validation_accuracy is None else f"val acc {metrics.validation_accuracy:.3f}, "
    return (
        f"epoch {metrics.epoch}, loss {metrics.loss:.3f}, train acc {metrics.train_accuracy:.3f}, "
        f"{validation}test acc {metrics.test_accuracy:.3f}"
    )


def fit(
    backend: Backend,
    model: Any,
    spec: ExperimentSpec,
    data: ImageData,
    param_group: bool = True,
    watch: Watch | None = None,
) -> History:
    """Train `model` in place through the phases of `spec` and evaluate it on the test set after each epoch.

    The test images are looked at for the curves only. Early stopping and the best epoch follow the validation images;
    with `keep` = best the model is put back to how it was after its best epoch, and the history's predictions are of
    that epoch.

    Raises Diverged when the loss is NaN or infinite. Whatever ends it, `watch` has seen every finished epoch.
    """
    watch = watch or Watch()
    transform = pipeline.transform_for(spec)
    watch.on_start(steps(spec, data))
    trained_images = counted_images(spec, len(data.train))
    steps_an_epoch = math.ceil(trained_images / spec.batch_size)
    class_counts = loss.class_counts(data.train, spec.classes)
    history, selection = History(), Selection(spec)
    images = resident.image_source(backend, spec, transform, data)
    for phase in groups.phases(spec, param_group):
        if phase.epochs == 0:
            continue
        store = None
        if features.reused(spec, phase):
            store = FeatureStore(backend, model, watch, images, features.folder_for(spec))
            history.features = store.counts
        learner, source = (store.head, store) if store else (model, images)
        trainer = backend.Trainer(learner, spec, phase, class_counts)
        selection.begin_phase()
        for past in range(phase.epochs):
            epoch = len(history.epochs) + 1
            factors = [
                schedules.factor(spec, step, phase.epochs * steps_an_epoch)
                for step in range(past * steps_an_epoch, (past + 1) * steps_an_epoch)
            ]
            trained = train_epoch(backend, trainer, spec, transform, data, epoch, watch, factors, source)
            if store:
                backend.load_arrays(model, backend.to_arrays(store.head))
            validation, test = evaluate(backend, learner, spec, transform, data, watch, source)
            metrics = epoch_metrics(epoch, phase.name, trained, trained_images, validation, test)
            for name, value in (("validation", metrics.validation_loss), ("test", test.loss)):
                if value is not None and not math.isfinite(value):
                    raise Diverged(diverged(f"the {name} loss is {value} after epoch {epoch}", spec))
            history.epochs.append(metrics)
            history.kept_epoch, history.validation, history.test = epoch, validation, test
            watch.on_epoch(metrics, test)
            selection.see(epoch, validation, test, lambda: backend.to_arrays(model))
            if selection.patience_is_over and past + 1 < phase.epochs:
                history.stopped_early = True
                break
    best = selection.best
    if best is not None:
        backend.load_arrays(model, best.arrays)
        history.kept_epoch, history.validation, history.test = best.epoch, best.validation, best.test
    if history.test is None:
        history.validation, history.test = evaluate(backend, model, spec, transform, data, watch, images)
    return history


def steps(spec: ExperimentSpec, data: ImageData) -> int:
    """Number of batches over all epochs, evaluations and features included."""
    images = (counted_images(spec, len(data.train)), len(data.validation), counted_images(spec, len(data.test)))
    train, *evaluated = (math.ceil(count / spec.batch_size) for count in images)
    # Features that are computed once take as many batches as an epoch.
    reused = sum(features.reused(spec, phase) for phase in groups.phases(spec) if phase.epochs)
    once = math.ceil(len(data.train) / spec.batch_size) + sum(evaluated)
    return spec.epochs * (train + sum(evaluated)) + reused * once or sum(evaluated)


def counted_images(spec: ExperimentSpec, images: int) -> int:
    """How many of an epoch's training images, or of the test images, count: all, or those in full batches."""
    return images - images % spec.batch_size if spec.last_batch == "drop" else images


def tested_samples(spec: ExperimentSpec, data: ImageData) -> Sequence[Sample]:
    """The test samples that count."""
    return data.test[: counted_images(spec, len(data.test))]


def evaluate(
    backend: Backend,
    model: Any,
    spec: ExperimentSpec,
    transform: pipeline.Transform,
    data: ImageData,
    watch: Watch,
    source: BatchSource,
) -> tuple[Predictions | None, Predictions]:
    """The model's predictions of the validation images, if there are any, and of the test images."""
    validation = None
    if data.validation:
        validation = predict(backend, model, spec, transform, data.validation, watch, source)
    return validation, predict(backend, model, spec, transform, tested_samples(spec, data), watch, source)


def epoch_metrics(
    epoch: int,
    phase: str,
    trained: tuple[float, float, float],
    images: int,
    validation: Predictions | None,
    test: Predictions,
) -> EpochMetrics:
    """The metrics of an epoch, of whose training part `trained` has mean loss, accuracy and seconds."""
    mean_loss, accuracy, seconds = trained
    return EpochMetrics(
        epoch, phase, mean_loss, accuracy, test.loss, test.accuracy, seconds, images / seconds,
        validation.loss if validation else None, validation.accuracy if validation else None,
    )  # fmt: skip


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
    rate_factors: Sequence[float],
    source: BatchSource,
) -> tuple[float, float, float]:
    """One pass over the training samples: mean loss, accuracy and seconds.

    rate_factors: the factor of the learning rate for each step.
    """
    start = time.perf_counter()
    loss_sum, correct, seen, unread = 0.0, 0, 0, 0
    counted = counted_images(spec, len(data.train))
    steps = math.ceil(counted / spec.batch_size)
    for step, (images, labels) in enumerate(train_batches(backend, spec, transform, data, epoch, source), start=1):
        trainer.train_step(images, labels, rate_factors[step - 1])
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
    if seen != counted:
        raise RunError(f"the input pipeline gave {seen} of {counted} training images in epoch {epoch}")
    return loss_sum / seen, correct / seen, time.perf_counter() - start


def predict(
    backend: Backend,
    model: Any,
    spec: ExperimentSpec,
    transform: pipeline.Transform,
    samples: Sequence[Sample],
    watch: Watch,
    source: BatchSource,
) -> Predictions:
    """The model's logits for every sample, prepared as for a test, in order."""
    start = time.perf_counter()
    logits: list[NDArray[Any]] = []
    labels: list[NDArray[np.int64]] = []
    seen = 0
    for images, batch_labels in test_batches(backend, spec, transform, samples, source):
        # Of a batch that several processes share there may be more rows than images; see `common.parallel`.
        logits.append(backend.logits(model, images)[: len(batch_labels)])
        labels.append(np.asarray(batch_labels, np.int64))
        seen += len(labels[-1])
        watch.on_progress(1, f"testing, {seen / (time.perf_counter() - start):.1f} images/s")
    result = Predictions(np.concatenate(logits), np.concatenate(labels))
    expected = [sample.label for sample in samples]
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
    batches: Iterable[tuple[Any, Any]]
    if spec.pipeline == "native":
        batches = backend.native_train_batches(spec, transform, data.train, epoch)
    else:
        prepared = source.train_batches(spec, transform, data.train, epoch)
        batches = (source.on_device(backend, images, labels) for images, labels in prepared)
    for images, labels in batches:
        if spec.last_batch == "keep" or len(labels) == spec.batch_size:
            yield images, labels


def test_batches(
    backend: Backend,
    spec: ExperimentSpec,
    transform: pipeline.Transform,
    samples: Sequence[Sample],
    source: BatchSource,
) -> Iterator[tuple[Any, NDArray[np.int64]]]:
    """The samples in order, prepared as for a test: images as the backend takes them, labels as NumPy."""
    if spec.pipeline == "native":
        for images, labels in backend.native_test_batches(spec, transform, samples):
            yield images, np.asarray(labels, np.int64)
        return
    for images, labels in source.test_batches(spec, transform, samples):
        yield source.on_device(backend, images, labels)[0], labels
