"""Plan the runs of a comparison, and find those that are done already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import backends
from common.data.folder import ImageData
from common.data.notes import notes
from common.method.plan import Plan
from common.network import sources
from common.runs import experiment
from common.runs.record import RECORD, read_record
from common.runs.run_folder import check_output
from common.spec.experiment import ExperimentSpec
from common.spec.names import backends_with
from common.system.errors import UserError
from scripts.cli.arguments import given_fields, options_of, parse_strategies
from scripts.cli.display import console
from scripts.cli.options import CompareOptions
from scripts.cli.weights import with_weights

State = Literal["waiting", "running", "done", "failed"]


@dataclass
class Run:
    """One run of a comparison."""

    spec: ExperimentSpec
    folder: Path
    arguments: list[str]
    """Arguments of `scripts.run`, except those on progress and on replacing a record."""
    steps: int
    """Number of batches, including those of the evaluations."""
    state: State = "waiting"
    started: bool = False
    steps_done: int = 0
    error: str = ""

    @property
    def label(self) -> str:
        """Backend, strategy and seed, as messages name the run."""
        return f"{self.spec.backend} {self.spec.strategy}, seed {self.spec.seed}"


def plan_runs(options: CompareOptions, seeds: int, arguments: list[str]) -> list[Run]:
    """Return the runs that the options ask for, with complete ones marked as done.

    Args:
        options: The options of the comparison.
        seeds: The number of seeds, counted from the spec's.
        arguments: The arguments that the options were parsed from.

    Returns:
        The runs, seed by seed.

    Raises:
        UserError: A backend cannot run the experiment, data or weights cannot be had, or the output folder holds other
            runs.
    """
    names = chosen_backends(options)
    strategies = with_weights([parsed.spec for parsed in parse_strategies(CompareOptions, "compare", arguments)])
    specs = [
        spec.replace(backend=backend, seed=spec.seed + number)
        for number in range(seeds)
        for spec in strategies
        for backend in names
    ]
    # A bad spec, bad weights and a failing download end the comparison before anything is run.
    for spec in {(spec.backend, spec.model, spec.weights): spec for spec in specs}.values():
        sources.read_for(spec)
    runs: list[Run] = []
    loaded: dict[tuple[object, ...], ImageData] = {}
    for spec in specs:
        # All that the choice of images depends on; only that of validation images depends on the seed.
        key = (
            spec.data, spec.data_url, spec.data_sha1, spec.zip_encoding, spec.split_seed, spec.bad_images,
            spec.train_limit, spec.test_limit, spec.validation, spec.seed if spec.validation else None, spec.max_pixels,
            spec.image_range,
        )  # fmt: skip
        if key not in loaded:
            loaded[key] = experiment.load_data(spec)
            if len(loaded) == 1:
                for note in notes(spec, loaded[key]):
                    console.print(note, soft_wrap=True)
        data = loaded[key]
        plan, choice = experiment.resolve(spec, data, given_fields(arguments))
        if choice is not None and not runs:
            console.print(choice.why, soft_wrap=True)
        runs.append(plan_run(options, plan))
        skip_if_complete(runs[-1], data, options.overwrite)
    return runs


def chosen_backends(options: CompareOptions) -> list[str]:
    """Return the backends to compare, in the project's order.

    Args:
        options: The options of the comparison. Without --backends these are all that have the model.

    Returns:
        The names of the backends.

    Raises:
        UserError: A name is no backend, or a backend that was asked for lacks the model.
    """
    able = backends_with(options.spec.model)
    # Without --backends, those that lack the model are left out without an error.
    wanted = [name for text in options.backends for name in text.split(",") if name] or able
    for name in wanted:
        if name not in backends.NAMES:
            raise UserError(f"--backends {name}: the backends are {', '.join(backends.NAMES)}")
        if name not in able:
            raise UserError(f"--model {options.spec.model}: not offered by {name}; choose --backends {' '.join(able)}")
    return [name for name in backends.NAMES if name in wanted]


def plan_run(options: CompareOptions, plan: Plan) -> Run:
    """Return the run of a plan, with its folder and its arguments."""
    spec = plan.spec
    assert options.output is not None
    folder = options.output / spec.backend / f"{spec.strategy}-seed{spec.seed}"
    check_output(spec, folder, overwrite=True)
    arguments = [*options_of(spec, options.preset, always=["seed"]), "--output", str(folder)]
    return Run(spec, folder, [*arguments, *(["--tensorboard"] if options.tensorboard else [])], plan.batches)


def skip_if_complete(run: Run, data: ImageData, overwrite: bool) -> None:
    """Mark a run as done if its record is complete.

    Args:
        run: The run.
        data: The images of the run.
        overwrite: Whether the run may replace a record; then nothing is marked.

    Raises:
        UserError: The record cannot be read, or is of another spec or other data.
    """
    if not (run.folder / RECORD).exists() or overwrite:
        return
    try:
        record = read_record(run.folder)
    except UserError as error:
        raise UserError(f"{error}; delete it, or replace it with --overwrite") from error
    # The record of a run that failed early says nothing of its data.
    if record.data.get("fingerprint", data.fingerprint) != data.fingerprint or record.spec != run.spec:
        other = [name for name, value in run.spec.to_dict().items() if record.spec.to_dict()[name] != value]
        raise UserError(
            f"--output {run.folder.parent.parent}: {run.folder} holds a run with other "
            f"{', '.join(other) or 'images'}; choose another --output, or replace it with --overwrite"
        )
    if record.status == "complete":
        run.state, run.steps_done = "done", run.steps
