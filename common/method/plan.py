"""The plan of an experiment: a spec applied to its data, worked out once and passed on from then on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.data.folder import ImageData
from common.method import feature_reuse, loss, phases
from common.method.phases import Phase
from common.preprocessing.transforms import Transform, transform_for
from common.spec.experiment import ExperimentSpec


@dataclass(frozen=True)
class Plan:
    """A spec applied to its data: how images are prepared, which stages train how fast, how many images count."""

    spec: ExperimentSpec
    transform: Transform
    phases: tuple[Phase, ...]
    """Empty for the strategy `zero-shot`."""
    class_counts: tuple[int, ...]
    """Training images of each class."""
    train_images: int
    validation_images: int
    test_images: int

    @property
    def trained_images(self) -> int:
        """Number of training images that count in an epoch: all, or those in full batches."""
        return counted_images(self.spec, self.train_images)

    @property
    def tested_images(self) -> int:
        """Number of test images that count: all, or those in full batches."""
        return counted_images(self.spec, self.test_images)

    @property
    def active_phases(self) -> tuple[Phase, ...]:
        """The phases that have at least one epoch."""
        return tuple(phase for phase in self.phases if phase.epochs)

    @property
    def steps_an_epoch(self) -> int:
        """Number of training steps in an epoch."""
        return math.ceil(self.trained_images / self.spec.batch_size)

    @property
    def batches(self) -> int:
        """Number of batches of a run: training, evaluation after each epoch, and features that are computed once."""
        evaluated = sum(
            math.ceil(count / self.spec.batch_size) for count in (self.validation_images, self.tested_images)
        )
        once = math.ceil(self.train_images / self.spec.batch_size) + evaluated
        reused = sum(self.reuses_features(phase) for phase in self.active_phases)
        return self.spec.epochs * (self.steps_an_epoch + evaluated) + reused * once or evaluated

    def reuses_features(self, phase: Phase) -> bool:
        """Return whether a phase trains the head on features that are computed once."""
        return feature_reuse.reused(self.spec, phase)


def make_plan(spec: ExperimentSpec, data: ImageData, param_group: bool = True) -> Plan:
    """Work out the plan of a spec on its data.

    A UserError comes from below where a phase would train nothing, or the source weights cannot be read.

    Args:
        spec: The experiment; its strategy is no longer `auto`.
        data: The data, with the validation images already held back from the training images.
        param_group: Whether stages and head have learning rates of their own.

    Returns:
        The plan.
    """
    return Plan(
        spec,
        transform_for(spec),
        phases.phases(spec, param_group),
        tuple(loss.class_counts(data.train, spec.classes)),
        len(data.train),
        len(data.validation),
        len(data.test),
    )


def counted_images(spec: ExperimentSpec, images: int) -> int:
    """Return how many of an epoch's training images, or of the test images, count: all, or those in full batches.

    >>> counted_images(ExperimentSpec(batch_size=32, last_batch="drop"), 100)
    96

    Args:
        spec: The experiment, for `batch_size` and `last_batch`.
        images: How many images there are.

    Returns:
        The number of images that count.
    """
    return images - images % spec.batch_size if spec.last_batch == "drop" else images
