"""The epoch loop, the same for every framework: it feeds a backend's Trainer, counts exactly, and reports."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from common.batches import features, resident
from common.batches.features import FeatureStore
from common.batches.source import BatchSource
from common.contract.backend import Backend, Trainer
from common.contract.results import EpochMetrics, History, Predictions
from common.contract.watch import Watch
from common.data.folder import ImageData
from common.method import feature_reuse, loss, phases, schedules
from common.method.counting import counted_images, steps
from common.preprocessing import transforms
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError
from common.training.evaluation import evaluate
from common.training.selection import Selection

# A read of the loss waits for the device, so it happens every few steps only.
STEPS_BETWEEN_READS = 8


class Diverged(RunError):
    """The loss became NaN or infinite."""


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
    transform = transforms.transform_for(spec)
    watch.on_start(steps(spec, data))
    trained_images = counted_images(spec, len(data.train))
    steps_an_epoch = math.ceil(trained_images / spec.batch_size)
    class_counts = loss.class_counts(data.train, spec.classes)
    history, selection = History(), Selection(spec)
    images = resident.image_source(backend, spec, transform, data)
    for phase in phases.phases(spec, param_group):
        if phase.epochs == 0:
            continue
        store = None
        if feature_reuse.reused(spec, phase):
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
    transform: transforms.Transform,
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


def train_batches(
    backend: Backend,
    spec: ExperimentSpec,
    transform: transforms.Transform,
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
