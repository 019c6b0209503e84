"""The parts of `scripts.sweep`: its search, its trials one after the other, and the summary at the end."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import backends
from common.contract.results import EpochMetrics, Predictions
from common.data.notes import notes
from common.network import sources
from common.runs import experiment
from common.runs.record import MODEL, RunRecord
from common.spec.experiment import ExperimentSpec
from common.sweep.study import Result, Sampler, Search, Study, held_out
from common.sweep.trial import run_trial
from common.sweep.vary import Variable, with_values
from common.system.errors import UserError
from scripts.cli.arguments import given_fields, options_of, parse
from scripts.cli.display import RichWatch, console, describe_value, show_study
from scripts.cli.options import SweepOptions
from scripts.cli.weights import with_weights
from scripts.environments import definitions, use

DEFAULT_TRIALS = 20


class TrialWatch(RichWatch):
    """A progress bar that hands the metrics of each epoch on instead of printing them."""

    def __init__(self, on_epoch: Callable[[EpochMetrics], None]) -> None:
        super().__init__()
        self.hand_on = on_epoch

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Hand the metrics on."""
        self.hand_on(metrics)


def find_search(options: SweepOptions, variables: Sequence[Variable]) -> Search:
    """Return how trials are chosen and when to stop.

    Args:
        options: The options of the sweep.
        variables: The varied fields.

    Returns:
        The search. By default the sampler is `grid` if every variable is a list and else `tpe`, and the number of
        trials is DEFAULT_TRIALS, or None for a whole grid.

    Raises:
        UserError: The number of trials is below 1.
    """
    lists = all(variable.kind == "list" for variable in variables)
    sampler: Sampler = options.sampler or ("grid" if lists else "tpe")
    trials = options.trials if options.trials is not None or sampler == "grid" else DEFAULT_TRIALS
    if trials is not None and trials < 1:
        raise UserError(f"--trials {trials}: expected at least 1")
    return Search(sampler, trials, options.pruner)


def find_bases(options: SweepOptions, variables: Sequence[Variable], arguments: list[str]) -> dict[str, ExperimentSpec]:
    """Return the experiment for each strategy of the sweep, before anything is varied.

    Args:
        options: The options of the sweep.
        variables: The varied fields. If the strategy is one of them, each of its values gets the preset's spec for it.
        arguments: The arguments that the options were parsed from.

    Returns:
        Strategy -> experiment, which holds out training images to choose by and names its source weights.
    """
    found: dict[str, ExperimentSpec] = {options.spec.strategy: options.spec}
    for variable in variables:
        if variable.name == "strategy":
            rest = without_strategy(arguments)
            found = {str(name): parse(SweepOptions, "sweep", rest, str(name)).spec for name in variable.values}
    return dict(zip(found, map(held_out, with_weights(list(found.values()))), strict=True))


def without_strategy(arguments: list[str]) -> list[str]:
    """Return the arguments without --strategy, which varying the strategy replaces.

    >>> without_strategy(["--strategy", "scratch", "--epochs", "3"])
    ['--epochs', '3']

    Args:
        arguments: The arguments of a command.

    Returns:
        The other arguments.
    """
    before = [None, *arguments]
    return [
        argument
        for argument, previous in zip(arguments, before, strict=False)
        if "--strategy" not in (argument, previous) and not argument.startswith("--strategy=")
    ]


def check(bases: Mapping[str, ExperimentSpec], variables: Sequence[Variable]) -> None:
    """Check that the trials can run, before there is a study that a mistake would become part of.

    Args:
        bases: The experiment for each strategy.
        variables: The varied fields.

    Raises:
        UserError: A value is not allowed for its field, the devices do not fit the sweep, or data or weights are bad.
    """
    for variable in variables:
        for value in variable.grid:
            base = bases.get(str(value), next(iter(bases.values())))
            try:
                with_values(base, {variable.name: value})
            except UserError as error:
                raise UserError(f"--vary {variable.name}: {error}") from error
    for base in bases.values():
        if base.devices > 1 and any(v.name == "batch_size" and v.kind != "list" for v in variables):
            raise UserError(
                f"--vary batch_size: {base.devices} devices cannot share a batch of every size of a range; give a list "
                f"of multiples of {base.devices}"
            )
        if base.backend == "torch" and base.devices > 1:
            raise UserError(
                f"devices = {base.devices}: a sweep is one process, and PyTorch takes one for each device; leave the "
                "option away and start the sweep once for each, as they share the study, or choose another --backend"
            )
        sources.read_for(base)
        data = experiment.load_data(base)
        experiment.resolve(base, data)
        if base is next(iter(bases.values())):
            for note in notes(base, data):
                console.print(note, soft_wrap=True)


def run_trials(study: Study, bases: Mapping[str, ExperimentSpec], search: Search, arguments: list[str]) -> None:
    """Run trials until the study has them all; other processes may run some of them.

    Args:
        study: The study.
        bases: The experiment for each strategy.
        search: How the trials are chosen, and when to stop.
        arguments: The arguments of the sweep, for the command in the trials' records.
    """
    command = ["python", "-m", "scripts.sweep", *arguments]
    # The strategy auto leaves fields alone that were given.
    given = given_fields(arguments) | {variable.name for variable in study.variables}

    def run(spec: ExperimentSpec, folder: Path, on_epoch: Callable[[EpochMetrics], None]) -> RunRecord:
        with TrialWatch(on_epoch) as watch:
            request = experiment.Request(command, given=given, data_shown=True)
            finished = experiment.run(spec, folder, watch, backends.load, request)
        # The best is trained again, on all images; the networks of all trials would fill a disk.
        (folder / MODEL).unlink(missing_ok=True)
        return finished

    seed = next(iter(bases.values())).seed
    while (asked := study.ask(search, seed)) is not None:
        trial, lock = asked
        try:
            console.print(describe(run_trial(study, trial, bases, run)), soft_wrap=True)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def describe(result: Result) -> str:
    """Return the line that describes a finished trial, with its values and its validation accuracy."""
    values = ", ".join(f"{name} {describe_value(value)}" for name, value in result.values.items())
    reached = result.outcome if result.accuracy is None else f"validation accuracy {result.accuracy:.3f}"
    return f"trial {result.number}: {values}: {reached}" + (" (pruned)" if result.outcome == "pruned" else "")


def finish(study: Study, options: SweepOptions, bases: Mapping[str, ExperimentSpec]) -> None:
    """Print the trials and the command that runs the best of them on all training images, and write the picture.

    Args:
        study: The study.
        options: The options of the sweep.
        bases: The experiment for each strategy.
    """
    names = [variable.name for variable in study.variables]
    console.print()
    show_study(study.results(), names, console)
    best = study.best()
    if best is not None:
        base = bases[str(best.values["strategy"])] if "strategy" in best.values else next(iter(bases.values()))
        spec = with_values(base, best.values)
        # The classes come from the data; images are held back only where an epoch is chosen by them.
        left_out = ["classes"] if spec.early_stopping or spec.keep == "best" else ["classes", "validation"]
        arguments = options_of(spec, options.preset, left_out=left_out)
        console.print(f"\nbest: trial {best.number}. With all training images, and tested:")
        console.print(f"python -m scripts.run {shlex.join(arguments)}", soft_wrap=True)
    # Only the tools environment has matplotlib, and it is not built for a picture alone.
    python, again = definitions.ready_python("tools"), f"python -m scripts.sweep --show {shlex.quote(str(study.file))}"
    if python is None:
        console.print(f"\nas a picture: {again}", soft_wrap=True)
        return
    picture = [str(python), "-P", "-m", "scripts.sweep", "--show", str(study.file)]
    drawn = subprocess.run(picture, env=use.project_variables(), capture_output=True, text=True, check=False)
    shown = f"picture: {picture_of(study.file)}" if drawn.returncode == 0 else f"no picture: {drawn.stderr.strip()}"
    console.print(f"\n{shown}", soft_wrap=True)


def show(file: Path) -> None:
    """Print a study as a table and write its picture; raise UserError where there is no study or no trial in it."""
    from common.sweep import plot

    if not file.is_file():
        raise UserError(f"--show {file}: there is no such study; python -m scripts.sweep --vary ... makes one")
    study = Study(file)
    results = study.results()
    if not results:
        raise UserError(f"--show {file}: the study has no trial yet")
    show_study(results, [variable.name for variable in study.variables], console)
    plot.write(picture_of(study.file), results, study.variables)
    console.print(f"\npicture: {picture_of(study.file)}", soft_wrap=True)


def picture_of(file: Path) -> Path:
    """Return the path of the picture of a study.

    >>> picture_of(Path("lr.journal")).name
    'lr.png'

    Args:
        file: The file of the study.

    Returns:
        A PNG file beside it.
    """
    return file.with_name(f"{file.stem}.png")
