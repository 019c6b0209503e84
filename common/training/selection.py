"""What chooses between epochs, the validation images: early stopping and the best epoch. Test images choose nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from common.contract.results import Predictions
from common.network.weights import Arrays
from common.spec.experiment import ExperimentSpec


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
