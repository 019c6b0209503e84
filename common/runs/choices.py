"""What was chosen for the user before a run: source weights, strategy, and the epochs that fit into a time limit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from common.contract.results import History
from common.method import auto
from common.network import sources
from common.runs.record import RunRecord
from common.training.time_limit import Forecast, with_epochs


@dataclass(frozen=True)
class Choices:
    """What was chosen for the user; None where there was nothing to choose."""

    weights: sources.Choice | None = None
    strategy: auto.Choice | None = None
    epochs: Forecast | None = None

    def replace(self, **changes: Any) -> Choices:
        """Return a copy in which the fields named by `changes` have new values."""
        return replace(self, **changes)

    @property
    def notes(self) -> list[str]:
        """A line for each choice that was made before anything was measured."""
        return [choice.why for choice in (self.weights, self.strategy) if choice is not None]

    @property
    def entries(self) -> dict[str, Any]:
        """The entries of `resolved` in the record."""
        named = {"weights": self.weights, "auto": self.strategy, "time_limit": self.epochs}
        return {name: asdict(choice) for name, choice in named.items() if choice is not None}


def note_epochs(run_record: RunRecord, history: History, seconds: float) -> None:
    """Add to the record of a run with a time limit what came of its plan.

    The spec gets the epochs that the schedules ended with, so that it repeats the run.

    Args:
        run_record: The record.
        history: The results.
        seconds: The time since the run began.
    """
    planned = run_record.resolved.get("time_limit")
    if planned is None:
        return
    run_record.spec = with_epochs(run_record.spec, history.planned_epochs)
    planned |= {"epochs": history.planned_epochs, "actual_epochs": len(history.epochs), "actual_seconds": seconds}
