"""The epoch loop, the same for every framework: feed a backend's Trainer, count every image, report each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from common.batches.features import FeatureBatches, cache_for
from common.batches.pipelines import image_batches
from common.batches.source import Batches
from common.contract.experiment import Experiment
from common.contract.results import EpochMetrics, History, Predictions
from common.contract.trainer import Trainer
from common.method import schedules
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError
from common.training.evaluation import evaluate
from common.training.selection import Selection
from common.training.time_limit import Pacer, TimeLimit

# Reading the loss waits for the device, so it is done only every few steps.
STEPS_BETWEEN_READS = 8


class Diverged(RunError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Trained:
    """The result of an epoch's training part."""

    loss: float
    """Mean cross-entropy over the examples, in training mode while the parameters moved."""
    accuracy: float
    """Fraction of the examples whose top-1 class was the true one."""
    seconds: float
    """Wall time in seconds."""


def fit(experiment: Experiment, model: Any, limit: TimeLimit | None = None) -> History:
    """Train `model` in place through the phases of an experiment and evaluate it after each epoch.

    The test images serve the curves only. Early stopping and the best epoch follow the validation images. With `keep` =
    best the model is put back to how it was after its best epoch, and the history's predictions are of that epoch.

    A loss that is NaN or infinite ends the training with Diverged. Whatever ends it, the experiment's watch has seen
    every finished epoch.

    Args:
        experiment: The experiment.
        model: The model, a backend's own object.
        limit: Shortens a phase whose epochs take longer than they were measured to take; None leaves all of them.

    Returns:
        The metrics of every epoch, and the predictions of the model that was kept.
    """
    backend, plan = experiment.backend, experiment.plan
    experiment.watch.on_start(plan.batches)
    history, selection = History(), Selection(plan.spec)
    images = image_batches(experiment)
    for phase in plan.active_phases:
        learner, batches = model, images
        if plan.reuses_features(phase):
            batches = FeatureBatches(experiment, model, images, cache_for(plan.spec))
            learner, history.features = batches.head, batches.counts
        trainer = backend.Trainer(learner, plan.spec, phase, plan.class_counts)
        selection.begin_phase()
        pacer = Pacer(experiment, phase, limit)
        for past in pacer.epochs():
            epoch = len(history.epochs) + 1
            factors = rate_factors(experiment, pacer.planned, past)
            trained = train_epoch(experiment, trainer, batches, epoch, factors)
            if learner is not model:
                backend.load_arrays(model, backend.to_arrays(learner))
            evaluated = evaluate(experiment, learner, batches)
            metrics = epoch_metrics(experiment, epoch, phase.name, trained, evaluated)
            check_finite(metrics, plan.spec)
            history.add(metrics, *evaluated)
            experiment.watch.on_epoch(metrics, evaluated[1])
            selection.see(epoch, *evaluated, lambda: backend.to_arrays(model))
            if selection.patience_is_over and past + 1 < pacer.planned:
                history.stopped_early = True
                break
        history.planned_epochs += pacer.planned
    best = selection.best
    if best is not None:
        backend.load_arrays(model, best.arrays)
        history.kept_epoch, history.validation, history.test = best.epoch, best.validation, best.test
    if history.test is None:
        history.validation, history.test = evaluate(experiment, model, images)
    return history


def rate_factors(experiment: Experiment, epochs: int, past: int) -> list[float]:
    """Return the learning rates' factor at each step of the epoch that follows `past` of the `epochs` of a phase."""
    steps = experiment.plan.steps_an_epoch
    return [schedules.factor(experiment.spec, step, epochs * steps) for step in range(past * steps, (past + 1) * steps)]


def epoch_metrics(
    experiment: Experiment, epoch: int, phase: str, trained: Trained, evaluated: tuple[Predictions | None, Predictions]
) -> EpochMetrics:
    """Put the metrics of an epoch together.

    Args:
        experiment: The experiment.
        epoch: Counted from 1.
        phase: Name of the phase.
        trained: The training part.
        evaluated: Predictions of the validation images, if there are any, and of the test images.

    Returns:
        The metrics.
    """
    validation, test = evaluated
    return EpochMetrics(
        epoch, phase, trained.loss, trained.accuracy, test.loss, test.accuracy, trained.seconds,
        experiment.plan.trained_images / trained.seconds, validation.loss if validation else None,
        validation.accuracy if validation else None,
    )  # fmt: skip


def check_finite(metrics: EpochMetrics, spec: ExperimentSpec) -> None:
    """Raise Diverged if a loss of the evaluation is NaN or infinite."""
    for name, value in (("validation", metrics.validation_loss), ("test", metrics.test_loss)):
        if value is not None and not math.isfinite(value):
            raise Diverged(diverged(f"the {name} loss is {value} after epoch {metrics.epoch}", spec))


def diverged(what: str, spec: ExperimentSpec) -> str:
    """Return the error message of a run that diverged, with advice; `what` says which loss and when."""
    return (
        f"{what}: training diverged. Choose a smaller --learning-rate (it was {spec.learning_rate:g} with the "
        f"{spec.loss_reduction} of the losses, {spec.mean_learning_rate:g} as for their mean)"
    )


def train_epoch(
    experiment: Experiment, trainer: Trainer, batches: Batches, epoch: int, rate_factors: Sequence[float]
) -> Trained:
    """Train for one pass over the training samples.

    Args:
        experiment: The experiment.
        trainer: The backend's trainer of the phase.
        batches: The source of the batches.
        epoch: Counted from 1.
        rate_factors: The learning rates' factor at each step.

    Returns:
        Mean loss and accuracy over the epoch's examples, and the time it took.

    Raises:
        Diverged: The loss became NaN or infinite.
        RunError: The input pipeline gave fewer or more images than count in an epoch.
    """
    spec, counted = experiment.spec, experiment.plan.trained_images
    start = time.perf_counter()
    loss_sum, correct, seen, unread = 0.0, 0, 0, 0
    steps = experiment.plan.steps_an_epoch
    for step, (images, labels) in enumerate(counted_batches(spec, batches.train(epoch)), start=1):
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
            experiment.watch.on_progress(unread, f"epoch {epoch}/{spec.epochs}: training, {speed:.1f} images/s")
            unread = 0
    if seen != counted:
        raise RunError(f"the input pipeline gave {seen} of {counted} training images in epoch {epoch}")
    return Trained(loss_sum / seen, correct / seen, time.perf_counter() - start)


def counted_batches(spec: ExperimentSpec, batches: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield the batches that count: all, or only the full ones where `last_batch` is drop."""
    for images, labels in batches:
        if spec.last_batch == "keep" or len(labels) == spec.batch_size:
            yield images, labels
