"""Measure how long the phases of an experiment take, on networks that are made for it and thrown away."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from common.batches.features import FeatureBatches, cache_for
from common.batches.pipelines import image_batches
from common.contract.experiment import Experiment
from common.contract.trainer import Trainer
from common.method.phases import Phase

# A pace is measured over at most so many batches after the first, or until this share of the time limit is over.
MEASURED_BATCHES, MEASURED_SHARE = 8, 0.02


@dataclass(frozen=True)
class Pace:
    """The seconds that batches take."""

    first: float
    """Of the first batch, in which a framework may compile."""
    batch: float
    """Of each of the others."""

    @property
    def compiling(self) -> float:
        """Seconds of compilation; the last batch, which may be smaller, is compiled as well."""
        return 2 * max(0.0, self.first - self.batch)


@dataclass(frozen=True)
class Cost:
    """The seconds that a phase takes."""

    once: float
    """At its start: compilation, and features that are computed once."""
    epoch: float
    """Of each epoch, with the evaluation after it."""

    def of(self, epochs: int) -> float:
        """Return the seconds of so many epochs."""
        return self.once + epochs * self.epoch if epochs else 0.0


def measure_costs(experiment: Experiment, limit: float) -> dict[str, Cost]:
    """Measure what each phase of an experiment with epochs costs.

    Args:
        experiment: The experiment.
        limit: The time limit in seconds, of which measuring takes a small part.

    Returns:
        Name of the phase -> its cost.
    """
    meter = Meter(experiment, MEASURED_SHARE * limit)
    return {phase.name: meter.cost(phase) for phase in experiment.plan.active_phases}


class Meter:
    """Measures phases of one experiment, on a network of its own.

    Args:
        experiment: The experiment.
        seconds: About how long a pace is measured.
    """

    def __init__(self, experiment: Experiment, seconds: float) -> None:
        self.experiment, self.seconds = experiment, seconds
        models = experiment.backend.build_models(experiment.spec)
        self.model = models.scratch if experiment.spec.strategy == "scratch" else models.fine_tune
        self.images = image_batches(experiment)
        compute, samples = experiment.backend.logits, experiment.data.test[: experiment.plan.tested_images]
        self.testing = self.pace(
            endless(lambda number: self.images.test(samples)), lambda images, labels: compute(self.model, images)
        )

    def cost(self, phase: Phase) -> Cost:
        """Return what a phase costs."""
        plan = self.experiment.plan
        evaluated = self.batches(plan.validation_images) + self.batches(plan.tested_images)
        if plan.reuses_features(phase):
            return self.cost_of_features(phase, evaluated)
        training = self.pace(endless(self.images.train), step_of(self.trainer(self.model, phase)))
        once = training.compiling + self.testing.compiling
        return Cost(once, plan.steps_an_epoch * training.batch + evaluated * self.testing.batch)

    def cost_of_features(self, phase: Phase, evaluated: int) -> Cost:
        """Return what a phase costs that trains the head on features computed once, unless they are kept already."""
        experiment, plan, data = self.experiment, self.experiment.plan, self.experiment.data
        features = FeatureBatches(experiment, self.model, self.images, cache_for(plan.spec))
        images, labels = next(iter(self.images.test(data.test)))
        vectors = experiment.backend.feature_extractor(self.model)(images)[: len(labels)]
        batch = experiment.backend.from_shared(vectors, labels)
        training = self.pace(itertools.repeat(batch), step_of(self.trainer(features.head, phase)))
        parts = (data.train, data.validation, data.test[: plan.tested_images])
        missing = sum(self.batches(len(part)) for part in parts if part and not features.are_kept(part))
        once = training.compiling + (self.testing.compiling + missing * self.testing.batch if missing else 0.0)
        # To test the head takes no longer than to train it.
        return Cost(once, (plan.steps_an_epoch + evaluated) * training.batch)

    def trainer(self, model: Any, phase: Phase) -> Trainer:
        """Return a trainer of a network, or of a head alone, for a phase."""
        plan = self.experiment.plan
        return self.experiment.backend.Trainer(model, plan.spec, phase, plan.class_counts)

    def batches(self, images: int) -> int:
        """Return how many batches images make."""
        return math.ceil(images / self.experiment.spec.batch_size)

    def pace(self, batches: Iterable[tuple[Any, Any]], work: Callable[[Any, Any], Any]) -> Pace:
        """Work on batches for about `seconds`, but on at least two of them.

        Args:
            batches: Batches of images or features, and labels, without an end.
            work: Works on a batch, and waits until it is done.

        Returns:
            The seconds of the first, and the mean of the others.
        """
        begin = now = time.perf_counter()
        first = 0.0
        for number, (images, labels) in enumerate(batches):
            work(images, labels)
            now = time.perf_counter()
            if number == 0:
                first, begin = now - begin, now
            elif number == MEASURED_BATCHES or now - begin > self.seconds:
                break
        return Pace(first, (now - begin) / number)


def endless(batches: Callable[[int], Iterable[tuple[Any, Any]]]) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of epoch after epoch; `batches` returns those of an epoch, counted from 1."""
    for epoch in itertools.count(1):
        yield from batches(epoch)


def step_of(trainer: Trainer) -> Callable[[Any, Any], Any]:
    """Return a function that trains on a batch and waits for the device."""

    def step(images: Any, labels: Any) -> None:
        trainer.train_step(images, labels, 1.0)
        trainer.read_sums()

    return step
