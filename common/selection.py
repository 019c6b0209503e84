"""What chooses between epochs, the validation images: early stopping and the best epoch. Test images choose nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UserError
from common.folder import ImageData, Sample
from common.spec import ExperimentSpec

if TYPE_CHECKING:
    from common.fit import Predictions
    from common.weights import Arrays

# Stream of random numbers of the split; common.resnet and common.pipeline have 1 to 4.
_SPLIT = 5


def split(data: ImageData, spec: ExperimentSpec) -> ImageData:
    """The data with `spec.validation` of the training images of each class held back, drawn from the seed.

    Of n images of a class, round(validation * n) validate. Raises UserError where that leaves a class without an
    image to validate or to train on.
    """
    if not spec.validation:
        return data
    train: list[Sample] = []
    validation: list[Sample] = []
    for label, name in enumerate(data.classes):
        samples = [sample for sample in data.train if sample.label == label]
        count = round(spec.validation * len(samples))
        if not 0 < count < len(samples):
            raise UserError(
                f"--validation {spec.validation:g} makes {count} of the {len(samples)} training images of the class "
                f"{name!r} validation images; both parts need at least one"
            )
        # Of the generator only `random` is used: its stream is the same in every NumPy.
        draws = np.random.default_rng([spec.seed, _SPLIT, label]).random(len(samples))
        chosen = set(np.argsort(draws, kind="stable")[:count].tolist())
        train += [sample for index, sample in enumerate(samples) if index not in chosen]
        validation += [sample for index, sample in enumerate(samples) if index in chosen]
    return dataclasses.replace(data, train=tuple(train), validation=tuple(validation))


@dataclasses.dataclass(frozen=True)
class Best:
    """The model after its best epoch."""

    epoch: int
    arrays: Arrays
    validation: Predictions
    test: Predictions


class Selection:
    """Follows the validation loss, which resolves more than an accuracy of few images; of equal epochs the first is
    the best. Patience begins anew with each phase, as the optimizer does."""

    def __init__(self, spec: ExperimentSpec) -> None:
        self.spec = spec
        self.best: Best | None = None
        self.lowest_loss = self.lowest_in_phase = math.inf
        self.epochs_without_gain = 0

    def begin_phase(self) -> None:
        """The epochs that follow are of a new phase."""
        self.lowest_in_phase, self.epochs_without_gain = math.inf, 0

    def see(
        self, epoch: int, validation: Predictions | None, test: Predictions, to_arrays: Callable[[], Arrays]
    ) -> None:
        """An epoch ended; `to_arrays` copies the model as it is now."""
        if validation is None:
            return
        loss = validation.loss
        if loss < self.lowest_in_phase:
            self.lowest_in_phase, self.epochs_without_gain = loss, 0
        else:
            self.epochs_without_gain += 1
        if loss < self.lowest_loss:
            self.lowest_loss = loss
            if self.spec.keep == "best":
                self.best = Best(epoch, to_arrays(), validation, test)

    @property
    def patience_is_over(self) -> bool:
        """Whether the phase should end."""
        return self.spec.early_stopping is not None and self.epochs_without_gain >= self.spec.early_stopping
