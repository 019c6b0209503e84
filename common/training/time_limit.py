"""Fit the epochs of a run into a time: measure a few steps before training, and look at the clock at each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from common.contract.experiment import Experiment
from common.method import phases, schedules
from common.method.phases import Phase
from common.method.plan import Plan
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.training.pace import Cost, measure_costs

# Kept free for writing the results: so many seconds, and this share of the limit.
WRITING_SECONDS, WRITING_SHARE = 3.0, 0.02
# Share of the time left that is planned with: a machine is not always as fast as it was when measured.
PLANNED_SHARE = 0.9


@dataclass
class TimeLimit:
    """The longest time of a run, in seconds, and what its phases were measured to take."""

    seconds: float
    start: float = field(default_factory=time.perf_counter)
    """When the run began, by `time.perf_counter`."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """Phase -> its seconds, as measured before training."""

    @property
    def left(self) -> float:
        """Seconds that are left for training, less those that are kept for writing the results."""
        writing = WRITING_SECONDS + WRITING_SHARE * self.seconds
        return self.seconds - writing - (time.perf_counter() - self.start)

    def seconds_of(self, chosen: Iterable[Phase]) -> float:
        """Return the seconds that phases were measured to take."""
        return sum(self.costs[phase.name].of(phase.epochs) for phase in chosen)

    def fitting(self, plan: Plan, phase: Phase, past: int, last: float | None) -> int:
        """Return how many epochs of a phase fit, those that are over included.

        Args:
            plan: The plan, for the phases that follow.
            phase: The phase.
            past: How many of its epochs are over.
            last: The seconds of the last of them; None before the first.

        Returns:
            The number of epochs: at least 1 and at least `past`, at most those of the phase.
        """
        order = [other.name for other in plan.active_phases]
        later = plan.active_phases[order.index(phase.name) + 1 :]
        left, cost = self.left - self.seconds_of(later), self.costs[phase.name]
        if last is None:
            left, seconds = left - cost.once, cost.epoch
        else:
            # The first epoch may have compiled, or computed features.
            seconds = last if past > 1 else min(last, cost.epoch)
        return min(phase.epochs, max(1, past + max(0, math.floor(left / seconds))))


class Pacer:
    """Counts the epochs of a phase, which become fewer where they take longer than there is time for.

    Args:
        experiment: The experiment.
        phase: The phase.
        limit: The limit of its time; with None the epochs stay those of the phase.
    """

    def __init__(self, experiment: Experiment, phase: Phase, limit: TimeLimit | None) -> None:
        self.experiment, self.phase, self.limit = experiment, phase, limit
        self.planned = phase.epochs
        """The number of epochs of the phase, on which its schedule depends."""

    def epochs(self) -> Iterator[int]:
        """Yield for each epoch how many are past, and look at the clock before it."""
        past, seconds = 0, None
        self.look(past, seconds)
        while past < self.planned:
            begin = time.perf_counter()
            yield past
            past, seconds = past + 1, time.perf_counter() - begin
            self.look(past, seconds)

    def look(self, past: int, seconds: float | None) -> None:
        """Leave out what does not fit any more, `past` epochs and `seconds` after the begin of the last, and say so."""
        if self.limit is None:
            return
        fitting = self.limit.fitting(self.experiment.plan, self.phase, past, seconds)
        if fitting < self.planned:
            self.experiment.watch.on_note(
                f"time limit: the phase {self.phase.name} ends after {fitting} epochs instead of {self.planned}, as "
                "they take longer than was measured"
            )
            self.planned = fitting


@dataclass(frozen=True)
class Forecast:
    """The epochs of a run with a time limit, as planned before training."""

    seconds: float
    """The limit."""
    asked_epochs: int
    planned_epochs: int
    planned_seconds: float
    """Seconds of the whole run."""
    seconds_an_epoch: dict[str, float]
    """Phase -> seconds of an epoch, evaluation included, as measured."""

    @property
    def note(self) -> str:
        """The plan in one line, for the user."""
        each = ", ".join(f"{in_words(seconds)} an epoch ({name})" for name, seconds in self.seconds_an_epoch.items())
        how_many = f"{self.planned_epochs} of {self.asked_epochs}"
        if self.planned_epochs == self.asked_epochs:
            how_many = f"all {self.asked_epochs}"
        return f"time limit {in_words(self.seconds)}: {how_many} epochs fit, at {each}"


def fit_epochs(experiment: Experiment, limit: TimeLimit) -> tuple[Experiment, Forecast]:
    """Give an experiment as many of its epochs as fit into the time that is left.

    A few steps are measured on networks of their own, so that the run that follows gives the same numbers as one of so
    many epochs without a limit.

    Args:
        experiment: The experiment, with epochs.
        limit: The limit, which keeps what was measured.

    Returns:
        The experiment with a plan that fits, and what was planned.

    Raises:
        UserError: Not even the fewest epochs that the strategy needs fit.
    """
    spec, plan = experiment.spec, experiment.plan
    limit.costs = measure_costs(experiment, limit.seconds)
    fewest = min(spec.epochs, 2 if spec.strategy == "warm-up" else 1)
    for epochs in range(spec.epochs, fewest - 1, -1):
        plan = shortened(plan, epochs)
        needed = limit.seconds_of(plan.active_phases)
        if needed <= PLANNED_SHARE * limit.left:
            break
    else:
        left = max(0.0, limit.left)
        # Rounded up to ten seconds, as the next start may take longer.
        enough = 10 * math.ceil((limit.seconds - limit.left + needed / PLANNED_SHARE) / (1 - WRITING_SHARE) / 10)
        raise UserError(
            f"--time-limit {in_words(limit.seconds)}: {fewest} epoch{'s' * (fewest > 1)} of {spec.strategy} would take "
            f"{in_words(needed)} here, and {in_words(left)} are left for training; give it {in_words(enough)} or more, "
            "or choose a smaller --image-size or --train-limit"
        )
    for phase in plan.active_phases:
        schedules.check(plan.spec, phase.name, phase.epochs * plan.steps_an_epoch)
    each = {phase.name: limit.costs[phase.name].epoch for phase in plan.active_phases}
    forecast = Forecast(limit.seconds, spec.epochs, plan.spec.epochs, limit.seconds - limit.left + needed, each)
    return experiment.replace(plan=plan), forecast


def shortened(plan: Plan, epochs: int) -> Plan:
    """Return the plan of the same experiment with fewer epochs."""
    spec = with_epochs(plan.spec, epochs)
    return replace(plan, spec=spec, phases=phases.phases(spec))


def with_epochs(spec: ExperimentSpec, epochs: int) -> ExperimentSpec:
    """Return an experiment with fewer epochs, in which the strategy `warm-up` leaves its second phase at least one."""
    warm_up = min(spec.warm_up_epochs, max(1, epochs - 1)) if spec.strategy == "warm-up" else spec.warm_up_epochs
    return spec.replace(epochs=epochs, warm_up_epochs=warm_up)


def in_words(seconds: float) -> str:
    """Return a time as people write it.

    >>> in_words(90), in_words(3600), in_words(5400), in_words(0.25)
    ('1m30s', '1h', '1h30m', '0.25s')
    """
    if seconds < 60:
        return f"{seconds:.2g}s" if seconds < 10 else f"{seconds:.0f}s"
    whole = round(seconds)
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)
