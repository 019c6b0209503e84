"""A study: the trials of a sweep in one file, which processes share and a later start continues.

The file is an Optuna journal, which needs no database and works on network file systems. Beside it, in a folder of
its name, every trial has a folder with the record of its run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from common.contract.results import EpochMetrics
from common.contract.watch import Stopped
from common.runs.record import RunRecord
from common.spec.experiment import ExperimentSpec
from common.sweep.vary import Value, Variable, grid, with_values
from common.system.errors import UserError
from common.training.loop import Diverged

Sampler = Literal["grid", "random", "tpe"]
Outcome = Literal["complete", "diverged", "pruned", "interrupted", "failed", "running"]

VALIDATION = 0.2
STUDY_NAME = "sweep"
# What may differ between the processes that share a study: the backends agree, and the rest changes no result.
FREE_FIELDS = ("backend", "device", "devices", "workers", "data_url", "data_sha1")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Result:
    """What a trial came to."""

    number: int
    values: dict[str, Value]
    outcome: Outcome
    accuracy: float | None
    """On the validation images: of the kept model, or after the last epoch of a trial that was cut."""
    epochs: int
    """How many epochs ended."""
    reason: str
    """Why a trial that is not complete ended."""
    backend: str


def held_out(spec: ExperimentSpec) -> ExperimentSpec:
    """The experiment with a part of its training images held out to choose by, if it has none yet."""
    return spec if spec.validation else spec.replace(validation=VALIDATION)


def score(record: RunRecord) -> float:
    """What a sweep chooses by: the accuracy of the kept model on the held-out training images, never on the test
    images.
    """
    return record.final["validation_accuracy"]


class Study:
    """The trials of one sweep. Several processes may hold the same file open."""

    def __init__(self, file: Path) -> None:
        """Raises UserError for a file that is no study."""
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
        """Open the study of a sweep, made if there is none. Raises UserError for a study of another sweep.

        bases: the experiment for each strategy, before it is varied.
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
        """What the study varies."""
        return tuple(
            Variable(stored["name"], stored["kind"], tuple(stored["values"]), stored["points"])
            for stored in self.study.user_attrs.get("vary", [])
        )

    def results(self) -> list[Result]:
        """Every trial so far, in the order of their start."""
        return [result_of(trial) for trial in self.study.get_trials(deepcopy=False) if trial.state.name != "WAITING"]

    def best(self) -> Result | None:
        """The complete trial of the highest accuracy; of equal ones the first."""
        complete = [result for result in self.results() if result.outcome == "complete" and result.accuracy is not None]
        return max(complete, key=lambda result: (result.accuracy, -result.number), default=None)

    def lock_of(self, number: int) -> FileLock:
        """Held by the process that runs trial `number`, and free once that process has ended, however it did."""
        return FileLock(self.folder / f"{number:04d}.lock", timeout=0)

    def ask(self, sampler: Sampler, trials: int | None, seed: int) -> tuple[Trial, FileLock] | None:
        """The next trial with its lock, or None when `trials`, or the points of the grid, have run or are running.

        A trial that was interrupted or failed, or whose process died, does not count: its point is tried again.
        """
        variables = self.variables
        with FileLock(self.folder / ".lock"):
            known = [trial for trial in self.study.get_trials(deepcopy=False) if self.counts(trial)]
            if trials is not None and len(known) >= trials:
                return None
            taken = [trial.params for trial in known]
            # Every process draws from the number of trials there are, so no two draw the same.
            draw = seed * 100_003 + len(self.study.get_trials(deepcopy=False))
            if sampler == "grid":
                point = next((point for point in grid(variables) if point not in taken), None)
                if point is None:
                    return None
                if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                    self.study.enqueue_trial(point)
            elif sampler == "random":
                self.study.sampler = optuna.samplers.RandomSampler(seed=draw)
            else:
                self.study.sampler = optuna.samplers.TPESampler(seed=draw)
            trial = self.study.ask({variable.name: distribution(variable) for variable in variables})
            lock = self.lock_of(trial.number)
            lock.acquire()
        return trial, lock

    def counts(self, trial: FrozenTrial) -> bool:
        """Whether a trial has ended with a result or is running; one whose process has died is marked as failed."""
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


def run_trial(
    study: Study,
    trial: Trial,
    bases: Mapping[str, ExperimentSpec],
    run: Callable[[ExperimentSpec, Path, Callable[[EpochMetrics], None]], RunRecord],
    pruner: Literal["median", "none"],
) -> Result:
    """Run one trial and note what it came to: a run that diverges or is pruned is a result like any other.

    run: runs an experiment into a folder and calls back after each epoch. Any other error is noted and raised again.
    """
    # Half of the trials are cut, once there are five to compare with, after their second epoch at the earliest.
    study.study.pruner = (
        optuna.pruners.MedianPruner(n_warmup_steps=2) if pruner == "median" else optuna.pruners.NopPruner()
    )

    def on_epoch(metrics: EpochMetrics) -> None:
        assert metrics.validation_accuracy is not None
        trial.report(metrics.validation_accuracy, metrics.epoch)
        if trial.should_prune():
            raise Stopped(f"pruned after epoch {metrics.epoch}: its validation accuracy was below the others' median")

    def note(outcome: Outcome, reason: str, state: TrialState, accuracy: float | None = None) -> None:
        trial.set_user_attr("outcome", outcome)
        trial.set_user_attr("reason", reason)
        study.study.tell(trial, accuracy, state=state)

    trial.set_user_attr("backend", next(iter(bases.values())).backend)
    try:
        record = run(spec_of(bases, trial), study.folder / f"{trial.number:04d}", on_epoch)
    except Diverged as error:
        note("diverged", str(error), TrialState.PRUNED)
    except Stopped as error:
        note("pruned", str(error), TrialState.PRUNED)
    except KeyboardInterrupt:
        note("interrupted", "interrupted", TrialState.FAIL)
        raise
    except Exception as error:
        note("failed", f"{type(error).__name__}: {error}", TrialState.FAIL)
        raise
    else:
        note("complete", "", TrialState.COMPLETE, score(record))
    return result_of(study.study.get_trials(deepcopy=False)[trial.number])


def spec_of(bases: Mapping[str, ExperimentSpec], trial: Trial) -> ExperimentSpec:
    """The experiment of a trial: that of its strategy, with the trial's values."""
    strategy = trial.params.get("strategy")
    base = bases[strategy] if strategy is not None else next(iter(bases.values()))
    return with_values(base, trial.params)


def result_of(trial: FrozenTrial) -> Result:
    """A stored trial in this project's words."""
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
    """A variable as Optuna knows it."""
    if variable.kind == "list":
        return CategoricalDistribution(variable.values)
    low, high = variable.values
    logarithmic = variable.kind == "log range"
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=logarithmic)
    return FloatDistribution(float(low), float(high), log=logarithmic)


def comparable(spec: ExperimentSpec) -> dict[str, Any]:
    """The fields that all processes of a study have in common, as JSON gives them back."""
    values: dict[str, Any] = json.loads(spec.to_json())
    return {name: value for name, value in values.items() if name not in FREE_FIELDS}


def difference(name: str, stored: Any, wanted: Any) -> str:
    """In what a study differs from the sweep that is to continue it."""
    if name == "vary":
        return f"it varies {', '.join(variable['name'] for variable in stored)}, with its own values"
    for strategy, fields in wanted.items():
        for field, value in fields.items():
            if strategy in stored and stored[strategy].get(field) != value:
                return f"it is of experiments with {field} = {stored[strategy].get(field)!r}, not {value!r}"
    return "it is of other experiments"


def folder_of(file: Path) -> Path:
    """Where the trials of a study are."""
    return file.with_suffix("") if file.suffix else file.with_name(f"{file.name}-trials")


def check_journal(file: Path) -> None:
    """Raise UserError for a file that is there and is no journal; Optuna would write into it all the same."""
    if not file.exists():
        return
    try:
        with file.open() as stream:
            first = stream.readline()
        if first and "op_code" not in json.loads(first):
            raise ValueError
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"--study {file}: this is no study of a sweep; choose another file") from error
