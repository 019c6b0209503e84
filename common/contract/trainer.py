"""The interface of a backend's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from common.method.phases import Phase
from common.spec.experiment import ExperimentSpec


class Trainer(Protocol):
    """Train one model through one phase, with an optimizer whose parameter groups follow `phase.learning_rates`."""

    def __init__(
        self, model: Any, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        """Create the optimizer of a phase, with an empty state.

        Args:
            model: The model, which is trained in place.
            spec: The experiment.
            phase: The phase: which stages train at which rate, and which BatchNorm statistics are frozen.
            class_counts: Training images of each class, for `common.method.loss.target_table`.

        Raises:
            RuntimeError: A trained parameter is not in exactly one parameter group, or a frozen one is in any.
        """

    def train_step(self, images: Any, labels: Any, rate_factor: float = 1.0) -> None:
        """Compute a forward pass, a backward pass and an update, and add to the sums without waiting for the device.

        With several devices the step is that of the whole batch on one device, the statistics of BatchNorm included
        (synchronised BatchNorm).

        Args:
            images: Images or features of a batch, as this backend's pipelines give them. Where several processes share
                the batch, they are this one's part (`common.devices.processes`); where one process drives several
                devices, it shares them out.
            labels: Labels of the whole batch.
            rate_factor: Factor of all learning rates in this step. Momentum accumulates gradients, not updates, as in
                torch, so a rate acts on its own step only.
        """

    def read_sums(self) -> tuple[float, int]:
        """Return the sums over the examples since the last call, and start them anew.

        Returns:
            The sum of the losses (plain cross-entropy, whatever the targets), and the number of correct top-1
            predictions, over the examples of all devices; the same numbers in every process.
        """
