"""Early stopping and the choice of the best epoch, by the validation images; the test images choose nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from common.contract.results import Predictions
from common.network.weights import Arrays
from common.spec.experiment import ExperimentSpec


@dataclasses.dataclass(frozen=True)
class Best:
    """The model after its best epoch, and its predictions then."""

    epoch: int
    """Counted from 1."""
    arrays: Arrays
    """Copies of all parameters and statistics."""
    validation: Predictions
    test: Predictions


class Selection:
    """Find the best epoch, and the end of a phase's patience, by the validation loss.

    The loss resolves more than the accuracy of few images. Of equally good epochs the first is the best. Patience
    begins anew with each phase, as the optimizer does.
    """

    def __init__(self, spec: ExperimentSpec) -> None:
        self.spec = spec
        self.best: Best | None = None
        self.lowest_loss = self.lowest_in_phase = math.inf
        self.epochs_without_gain = 0

    def begin_phase(self) -> None:
        """Begin a new phase, to which the epochs that follow belong: patience starts again."""
        self.lowest_in_phase, self.epochs_without_gain = math.inf, 0

    def see(
        self, epoch: int, validation: Predictions | None, test: Predictions, to_arrays: Callable[[], Arrays]
    ) -> None:
        """Take the results of an epoch that has ended.

        Args:
            epoch: Counted from 1.
            validation: Predictions for the validation images; without them nothing is chosen.
            test: Predictions for the test images, which are kept with the best epoch and choose nothing.
            to_arrays: Copies the model as it is now; called only for a new best epoch that is to be kept.
        """
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
        """Whether the phase has had `early_stopping` epochs in a row without a lower validation loss."""
        return self.spec.early_stopping is not None and self.epochs_without_gain >= self.spec.early_stopping
