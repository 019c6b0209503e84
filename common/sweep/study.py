"""Keep the trials of a sweep in one file, a study, which processes share and a later start continues.

The file is an Optuna journal, which needs no database and works on network file systems. Beside it lies a folder of
its name, in which every trial has a folder with the record of its run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from common.spec.experiment import ExperimentSpec
from common.sweep.vary import Value, Variable, grid
from common.system.errors import UserError

Sampler = Literal["grid", "random", "tpe"]
Outcome = Literal["complete", "diverged", "pruned", "interrupted", "failed", "running"]

VALIDATION = 0.2
STUDY_NAME = "sweep"
# Fields that may differ between the processes that share a study: the backends agree, and the rest changes no result.
FREE_FIELDS = ("backend", "device", "devices", "workers", "data_url", "data_sha1")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Search:
    """How the trials of a study are chosen, and when to stop."""

    sampler: Sampler
    """Point after point of the grid, at random, or by Optuna's TPE."""
    trials: int | None = None
    """The number of trials of the whole study; None sets no limit."""
    pruner: Literal["median", "none"] = "none"
    """Whether Optuna's MedianPruner ends trials that are worse than the median of the others."""


@dataclass(frozen=True)
class Result:
    """The result of a trial."""

    number: int
    values: dict[str, Value]
    outcome: Outcome
    accuracy: float | None
    """On the validation images: of the kept model, or after the last epoch of a trial that ended early."""
    epochs: int
    """How many epochs were completed."""
    reason: str
    """Why a trial ended before it was complete; empty for others."""
    backend: str


def held_out(spec: ExperimentSpec) -> ExperimentSpec:
    """Return the experiment with VALIDATION of its training images held out to choose by, if it holds out none yet."""
    return spec if spec.validation else spec.replace(validation=VALIDATION)


class Study:
    """The trials of one sweep, in a file that several processes may hold open at once."""

    def __init__(self, file: Path) -> None:
        """Open the study, and make it if there is none.

        Args:
            file: The Optuna journal.

        Raises:
            UserError: The file is no study, or cannot be used as one.
        """
        self.file = file.absolute()
        self.folder = folder_of(self.file)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        check_journal(self.file)
        try:
            self.storage = JournalStorage(JournalFileBackend(str(self.file)))
            self.study = optuna.create_study(
                storage=self.storage, study_name=STUDY_NAME, direction="maximize", load_if_exists=True
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"--study {file}: cannot be used as a study: {error}") from error

    @classmethod
    def create(cls, file: Path, bases: Mapping[str, ExperimentSpec], variables: Sequence[Variable]) -> Study:
        """Open the study of a sweep, and make it if there is none.

        Args:
            file: The Optuna journal.
            bases: The experiment of each strategy, before it is varied.
            variables: The varied fields.

        Returns:
            The study.

        Raises:
            UserError: The file is no study, is one of another sweep, or cannot be written.
        """
        check_journal(file)
        try:
            folder_of(file.absolute()).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--study {file}: cannot be written to: {error.strerror}") from error
        with FileLock(folder_of(file.absolute()) / ".lock"):
            study = cls(file)
            wanted = {
                "vary": [json.loads(json.dumps(asdict(variable))) for variable in variables],
                "experiments": {strategy: comparable(base) for strategy, base in bases.items()},
            }
            stored = study.study.user_attrs
            for name, value in wanted.items():
                if name not in stored:
                    study.study.set_user_attr(name, value)
                elif stored[name] != value:
                    raise UserError(f"--study {file}: {difference(name, stored[name], value)}; choose another file")
        return study

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The fields that the study varies."""
        return tuple(
            Variable(stored["name"], stored["kind"], tuple(stored["values"]), stored["points"])
            for stored in self.study.user_attrs.get("vary", [])
        )

    def results(self) -> list[Result]:
        """Return the results of all trials so far, in the order of their start."""
        return [result_of(trial) for trial in self.study.get_trials(deepcopy=False) if trial.state.name != "WAITING"]

    def best(self) -> Result | None:
        """Return the complete trial of the highest accuracy, the first of equal ones; None if none is complete."""
        complete = [result for result in self.results() if result.outcome == "complete" and result.accuracy is not None]
        return max(complete, key=lambda result: (result.accuracy, -result.number), default=None)

    def lock_of(self, number: int) -> FileLock:
        """Return the lock that the process of trial `number` holds until it ends, however it ends."""
        return FileLock(self.folder / f"{number:04d}.lock", timeout=0)

    def ask(self, search: Search, seed: int) -> tuple[Trial, FileLock] | None:
        """Start the next trial.

        A trial that was interrupted or failed, or whose process died, does not count: its point is tried again.

        Args:
            search: How the values are chosen, and how many trials there are.
            seed: The seed of the samplers.

        Returns:
            The trial and its lock, which the caller holds while it runs; None when that many trials, or all points of
            the grid, have run or are running.
        """
        variables = self.variables
        # The median prunes half of the trials, once there are five to compare with, from their second epoch on.
        median = optuna.pruners.MedianPruner(n_warmup_steps=2)
        self.study.pruner = median if search.pruner == "median" else optuna.pruners.NopPruner()
        with FileLock(self.folder / ".lock"):
            known = [trial for trial in self.study.get_trials(deepcopy=False) if self.counts(trial)]
            if search.trials is not None and len(known) >= search.trials:
                return None
            taken = [trial.params for trial in known]
            # The seed of a draw contains the number of trials so far, so that no two processes draw the same.
            draw = seed * 100_003 + len(self.study.get_trials(deepcopy=False))
            if search.sampler == "grid":
                point = next((point for point in grid(variables) if point not in taken), None)
                if point is None:
                    return None
                if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                    self.study.enqueue_trial(point)
            elif search.sampler == "random":
                self.study.sampler = optuna.samplers.RandomSampler(seed=draw)
            else:
                self.study.sampler = optuna.samplers.TPESampler(seed=draw)
            trial = self.study.ask({variable.name: distribution(variable) for variable in variables})
            lock = self.lock_of(trial.number)
            lock.acquire()
        return trial, lock

    def counts(self, trial: FrozenTrial) -> bool:
        """Return whether a trial has a result or is running; mark one whose process has died as failed."""
        if trial.state != TrialState.RUNNING:
            return trial.state in ENDED
        try:
            with self.lock_of(trial.number):
                attributes = {"outcome": "failed", "reason": "the process that ran it ended"}
                for name, value in attributes.items():
                    self.storage.set_trial_user_attr(trial._trial_id, name, value)
                self.study.tell(trial.number, state=TrialState.FAIL)
            return False
        except Timeout:
            return True


def result_of(trial: FrozenTrial) -> Result:
    """Convert a trial as Optuna stores it to a Result."""
    last = trial.last_step
    outcome = trial.user_attrs.get("outcome", "running" if trial.state == TrialState.RUNNING else "failed")
    accuracy = trial.value if outcome == "complete" else None if last is None else trial.intermediate_values[last]
    if outcome == "diverged":
        accuracy = None
    return Result(
        trial.number,
        dict(trial.params),
        outcome,
        accuracy,
        last or 0,
        trial.user_attrs.get("reason", ""),
        trial.user_attrs.get("backend", ""),
    )


def distribution(variable: Variable) -> BaseDistribution:
    """Return the Optuna distribution of a variable: categorical for a list, else of whole or of real numbers."""
    if variable.kind == "list":
        return CategoricalDistribution(variable.values)
    low, high = variable.values
    logarithmic = variable.kind == "log range"
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=logarithmic)
    return FloatDistribution(float(low), float(high), log=logarithmic)


def comparable(spec: ExperimentSpec) -> dict[str, Any]:
    """Return the fields that all processes of a study must share, with values as they come back from JSON."""
    values: dict[str, Any] = json.loads(spec.to_json())
    return {name: value for name, value in values.items() if name not in FREE_FIELDS}


def difference(name: str, stored: Any, wanted: Any) -> str:
    """Say in what a study differs from the sweep that is to continue it.

    Args:
        name: The attribute that differs, `vary` or `experiments`.
        stored: Its value in the study.
        wanted: Its value for the sweep.

    Returns:
        The clause for the error message.
    """
    if name == "vary":
        return f"it varies {', '.join(variable['name'] for variable in stored)}, with its own values"
    for strategy, fields in wanted.items():
        for field, value in fields.items():
            if strategy in stored and stored[strategy].get(field) != value:
                return f"it is of experiments with {field} = {stored[strategy].get(field)!r}, not {value!r}"
    return "it is of other experiments"


def folder_of(file: Path) -> Path:
    """Return the folder of a study's trials, beside its file.

    >>> folder_of(Path("rates.log")).name, folder_of(Path("rates")).name
    ('rates', 'rates-trials')
    """
    return file.with_suffix("") if file.suffix else file.with_name(f"{file.name}-trials")


def check_journal(file: Path) -> None:
    """Raise UserError for an existing file that is no journal, into which Optuna would write all the same."""
    if not file.exists():
        return
    try:
        with file.open() as stream:
            first = stream.readline()
        if first and "op_code" not in json.loads(first):
            raise ValueError
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"--study {file}: this is no study of a sweep; choose another file") from error
