"""Run an experiment in several frameworks and hold the runs side by side: `python -m scripts.compare`.

`python -m scripts.compare RECORD...` makes the page from existing records.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.cli.lookup import value_of

if TYPE_CHECKING:
    from common.runs.record import RunRecord
    from scripts.cli.options import CompareOptions


DEFAULT_SEEDS = 3


def main(arguments: list[str]) -> int:
    """Run what is not done yet, write the report, and return the exit code: 1 if a run failed."""
    from scripts.cli.arguments import parse_strategies
    from scripts.cli.options import CompareOptions

    arguments = with_backend(arguments)
    options = parse_strategies(CompareOptions, "compare", arguments)[0]
    from common.report.crosscheck import read_crosscheck
    from common.runs.run_folder import reserved
    from common.spec.presets import read_preset
    from common.system.errors import UserError
    from scripts.cli import sharing
    from scripts.compare import processes
    from scripts.compare.plan import plan_runs
    from scripts.compare.progress import ComparisonView

    if value_of(arguments, "--crosscheck") is not None or options.crosscheck.is_file():
        # Read it now: an error should show before hours of training, not after.
        read_crosscheck(options.crosscheck)
    if options.records:
        return report_records(options.records, options.output or Path("runs/report"), options.crosscheck)
    options.output = options.output or Path("runs") / default_name(options)

    seeds = options.seeds
    if seeds is None:
        seeds = read_preset(options.preset).get("seeds", DEFAULT_SEEDS)
    jobs = sharing.default_jobs(options.spec.devices) if options.jobs is None else options.jobs
    if seeds < 1 or jobs < 1:
        raise UserError("--seeds and --jobs: expected at least 1")
    runs = plan_runs(options, seeds, arguments)
    with reserved(options.output):
        with ComparisonView(runs) as view:
            processes.Comparison(runs, jobs, view.on_change).work()
        records = processes.records_of(runs)
        failed = {run.label: run.error for run in runs if run.state == "failed"}
        if records:
            write_report(records, options.output, options.crosscheck, arguments[:-2], failed)
    return view.show_failures(runs)


def with_backend(arguments: list[str]) -> list[str]:
    """Return the arguments with --backend added, for the first backend of the comparison.

    The options are checked for that backend first.

    Args:
        arguments: The arguments of the comparison.

    Returns:
        The arguments, with two more at the end.

    Raises:
        UserError: The user gave --backend, while a comparison has several backends.
    """
    import backends
    from common.spec.names import backends_with
    from common.spec.presets import preset_names, read_preset
    from common.system.errors import UserError

    if value_of(arguments, "--backend") is not None:
        raise UserError("--backend: a comparison has several; name them with --backends")
    preset = value_of(arguments, "--preset")
    in_preset = read_preset(preset)["spec"] if preset in preset_names() else {}
    model = value_of(arguments, "--model") or in_preset.get("model", "resnet18")
    first = (value_of(arguments, "--backends") or "").split(",")[0]
    chosen = first if first in backends.NAMES else next(iter(backends_with(model)), "torch")
    return [*arguments, "--backend", chosen]


def default_name(options: CompareOptions) -> str:
    """Return the default name of a comparison's folder under runs/.

    Args:
        options: The options of the comparison.

    Returns:
        `compare-<preset>`, followed by the name of the data where they are not the preset's.
    """
    from common.spec.presets import read_preset

    own = read_preset(options.preset)["spec"].get("data") == options.spec.data
    return f"compare-{options.preset}" + ("" if own else f"-{Path(options.spec.data).stem}")


def report_records(paths: tuple[Path, ...], output: Path, crosscheck: Path) -> int:
    """Write the report of existing records.

    A file found in a folder that is no record is named on the terminal and left out.

    Args:
        paths: Records, and folders that are searched for them.
        output: Folder of the report.
        crosscheck: The result of `scripts.crosscheck` to show, if the file exists.

    Returns:
        The exit code, 0.

    Raises:
        UserError: A record that `paths` names, or all that were found, cannot be read; or the folder cannot be written
        to.
    """
    from common.runs.record import find_records, read_record
    from common.runs.run_folder import reserved
    from common.system.errors import UserError
    from scripts.cli.display import console

    records = {}
    for path in find_records(paths):
        try:
            records[path] = read_record(path)
        except UserError as error:
            if path in paths:
                raise
            console.print(f"left out: {error}", style="yellow", soft_wrap=True)
    if not records:
        raise UserError("none of the records can be read")
    with reserved(output):
        write_report(records, output, crosscheck, [*map(str, paths)], {})
    return 0


def write_report(
    records: Mapping[Path, RunRecord], output: Path, crosscheck: Path, arguments: list[str], failed: Mapping[str, str]
) -> None:
    """Print the table of the records, and write the page as HTML, Markdown and JSON.

    Args:
        records: Path of the record -> record.
        output: Folder of the page.
        crosscheck: The result of `scripts.crosscheck` to show, if the file exists.
        arguments: The arguments of `scripts.compare`, for the command that the page names.
        failed: Label of each failed run -> its error.
    """
    from common import report
    from scripts.cli.display import console, show_comparison

    show_comparison({str(path): record for path, record in records.items()}, console)
    command = ["python", "-m", "scripts.compare", *arguments]
    written = report.build(records, output, crosscheck if crosscheck.is_file() else None, command, failed)
    console.print(f"\nThe page: {written['html']}", style="bold", soft_wrap=True)
    console.print(f"the same as text and data: {written['md']}, {written['json']}", style="dim", soft_wrap=True)
