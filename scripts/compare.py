"""Run an experiment in several frameworks and hold the runs side by side: `python -m scripts.compare`.

`python -m scripts.compare RECORD...` makes the page from records that are there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.command import start

if TYPE_CHECKING:
    from common.record import RunRecord


DEFAULT_SEEDS = 3


def main(arguments: list[str]) -> int:
    """Run what is not done, make the report; return 1 if a run failed."""
    from scripts.options import CompareOptions, parse_strategies

    options = parse_strategies(CompareOptions, "compare", arguments)[0]
    if options.records:
        return report_records(options.records, options.output or Path("runs/report"), options.crosscheck)
    options.output = options.output or Path("runs") / f"compare-{options.preset}"
    from common import experiment
    from common.errors import UserError
    from common.spec import read_preset
    from scripts import comparing
    from scripts.comparison_view import ComparisonView

    seeds = options.seeds
    if seeds is None:
        seeds = read_preset(options.preset).get("seeds", DEFAULT_SEEDS)
    jobs = comparing.default_jobs() if options.jobs is None else options.jobs
    if seeds < 1 or jobs < 1:
        raise UserError("--seeds and --jobs: expected at least 1")
    with experiment.reserved(options.output):
        runs = comparing.plan_runs(options, seeds, arguments)
        with ComparisonView(runs) as view:
            comparing.Comparison(runs, jobs, view.on_change).work()
        records = comparing.records_of(runs)
        failed = {run.label: run.error for run in runs if run.state == "failed"}
        if records:
            write_report(records, options.output, options.crosscheck, arguments, failed)
    return view.show_failures(runs)


def report_records(paths: tuple[Path, ...], output: Path, crosscheck: Path) -> int:
    """The report of given records."""
    from common.record import find_records, read_record

    records = {path: read_record(path) for path in find_records(paths)}
    write_report(records, output, crosscheck, [*map(str, paths)], {})
    return 0


def write_report(
    records: Mapping[Path, RunRecord], output: Path, crosscheck: Path, arguments: list[str], failed: Mapping[str, str]
) -> None:
    """Print the table and write the page."""
    from common import report
    from scripts.display import console, show_comparison

    show_comparison({str(path): record for path, record in records.items()}, console)
    command = ["python", "-m", "scripts.compare", *arguments]
    written = report.build(records, output, crosscheck if crosscheck.is_file() else None, command, failed)
    console.print(f"\nThe page: {written['html']}", style="bold", soft_wrap=True)
    console.print(f"the same as text and data: {written['md']}, {written['json']}", style="dim", soft_wrap=True)


if __name__ == "__main__":
    start("compare", main)
