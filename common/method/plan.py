"""What a spec means on the data at hand, worked out once and carried from then on."""

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
    """An experiment as its data make it: how images are prepared, what trains how fast, how much is counted."""

    spec: ExperimentSpec
    transform: Transform
    phases: tuple[Phase, ...]
    """None for the strategy `zero-shot`."""
    class_counts: tuple[int, ...]
    """Training images of each class."""
    train_images: int
    validation_images: int
    test_images: int

    @property
    def trained_images(self) -> int:
        """Training images that count in an epoch: all, or those in full batches."""
        return counted_images(self.spec, self.train_images)

    @property
    def tested_images(self) -> int:
        """Test images that count: all, or those in full batches."""
        return counted_images(self.spec, self.test_images)

    @property
    def active_phases(self) -> tuple[Phase, ...]:
        """The phases that have epochs."""
        return tuple(phase for phase in self.phases if phase.epochs)

    @property
    def steps_an_epoch(self) -> int:
        """Training steps of an epoch."""
        return math.ceil(self.trained_images / self.spec.batch_size)

    @property
    def batches(self) -> int:
        """Batches of the whole run: training, evaluation after each epoch, and features that are computed once."""
        evaluated = sum(
            math.ceil(count / self.spec.batch_size) for count in (self.validation_images, self.tested_images)
        )
        once = math.ceil(self.train_images / self.spec.batch_size) + evaluated
        reused = sum(self.reuses_features(phase) for phase in self.active_phases)
        return self.spec.epochs * (self.steps_an_epoch + evaluated) + reused * once or evaluated

    def reuses_features(self, phase: Phase) -> bool:
        """Tell whether a phase trains the head on features that are computed once."""
        return feature_reuse.reused(self.spec, phase)


def make_plan(spec: ExperimentSpec, data: ImageData, param_group: bool = True) -> Plan:
    """Work out what a spec means on its data.

    Args:
        spec: The experiment; its strategy is no longer `auto`.
        data: The data, validation images held back.
        param_group: Whether stages and head have learning rates of their own.

    Raises:
        UserError: A phase would train nothing, or the source weights cannot be read.
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
    """Return how many of an epoch's training images, or of the test images, count: all, or those in full batches."""
    return images - images % spec.batch_size if spec.last_batch == "drop" else images
