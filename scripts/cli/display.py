"""Display on a terminal: progress bars, tables and pictures of the commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from common.contract.results import EpochMetrics, Predictions
from common.contract.watch import Watch, describe
from common.data.folder import Sample, read_file
from common.runs.predictions import agreement
from common.runs.record import RunRecord, differences
from common.spec.experiment import ExperimentSpec
from common.spec.presets import preset_names, read_preset
from common.system.errors import UserError

if TYPE_CHECKING:
    from common.sweep.study import Result

# Names of files and classes come from users and must not be read as markup.
console = Console(highlight=False, markup=False)


class RichWatch(Watch):
    """A progress bar with images/s, and above it one line for each epoch, like the book's."""

    def __init__(self) -> None:
        self.progress = Progress(
            SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn(), console=console,
            transient=True,
        )  # fmt: skip
        self.task = self.progress.add_task("preparing", total=None)

    def __enter__(self) -> RichWatch:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def on_note(self, text: str) -> None:
        """Print the note above the bar."""
        console.print(text, soft_wrap=True)

    def on_start(self, steps: int) -> None:
        """Set the length of the bar."""
        self.progress.update(self.task, total=steps)

    def on_progress(self, steps: int, text: str) -> None:
        """Advance the bar and change the text beside it."""
        self.progress.update(self.task, advance=steps, description=text)

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Print the line of the epoch above the bar, with its seconds and images/s."""
        speed = f"   {metrics.seconds:.1f} s, {metrics.images_per_second:.1f} images/s"
        console.print(Text(describe(metrics)).append(speed, style="dim"), soft_wrap=True)


class JsonWatch(Watch):
    """Report progress to a program: one JSON object a line on standard output, and a plain line for each epoch."""

    def __enter__(self) -> JsonWatch:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def on_progress(self, steps: int, text: str) -> None:
        """Print the progress as a JSON object with `steps` and `text`."""
        print(json.dumps({"steps": steps, "text": text}), flush=True)

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Print the line of the epoch."""
        print(describe(metrics), flush=True)


def make_table(*headings: str) -> Table:
    """Return an empty table with these headings, without borders; its first column is never cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=number == 0, overflow="fold", justify="left" if number == 0 else "right")
    return table


def show_runs(records: dict[str, RunRecord]) -> None:
    """Print a table of finished runs, given as path of the record -> record, and notes on what was kept or left out."""
    table = make_table("strategy", "test accuracy", "test loss", "trained parameters", "seconds", "images/s")
    for record in records.values():
        speed = record.timing.get("images_per_second")
        table.add_row(
            record.spec.strategy,
            f"{record.final['test_accuracy']:.3f}",
            f"{record.final['test_loss']:.3f}",
            f"{record.model['trained_parameters']:,}",
            f"{record.timing['total_seconds']:.0f}",
            f"{speed:.1f}" if speed else "-",
        )
    console.print(table)
    for record in records.values():
        if record.epochs and (record.spec.keep == "best" or record.stopped_early):
            kept = record.epochs[record.kept_epoch - 1] if record.kept_epoch else record.epochs[-1]
            stopped = ", stopped early" if record.stopped_early else ""
            console.print(
                f"{record.spec.strategy}: kept the model of epoch {kept.epoch} of {len(record.epochs)}{stopped}; "
                f"its validation loss is {kept.validation_loss:.3f}"
            )
    first = next(iter(records.values()))
    console.print(
        f"{first.data['train_images']} training and {first.data['test_images']} test images, "
        f"{first.resolved['image_size']} px, {first.environment['device']['kind']} "
        f"({first.environment['device']['name']})"
    )
    if first.spec.last_batch == "drop":
        counted = f"{first.data['trained_images']} of the training and {first.data['tested_images']} of the test images"
        console.print(f"the incomplete last batches were dropped: {counted} counted", style="yellow")
    if first.data["skipped_images"]:
        console.print(f"{first.data['skipped_images']} unreadable images were skipped", style="yellow")
    for path in records:
        console.print(f"record: {path}", style="dim", soft_wrap=True)


def show_comparison(records: dict[str, RunRecord], to: Console) -> None:
    """Print a table of records, and how the runs of each strategy differ in more than backend and seed.

    Args:
        records: Path of the record -> record; the table has a line for each, sorted by strategy, backend and seed.
        to: The console to print on.
    """
    table = make_table("record", "strategy", "backend", "seed", "test accuracy", "test loss", "images/s", "status")
    table.columns[1].no_wrap = True
    chosen = sorted(records.items(), key=lambda item: (item[1].spec.strategy, item[1].spec.backend, item[1].spec.seed))
    for number, (_, record) in enumerate(chosen, start=1):
        speed = record.timing.get("images_per_second")
        table.add_row(
            str(number),
            record.spec.strategy,
            record.spec.backend,
            str(record.spec.seed),
            f"{record.final['test_accuracy']:.3f}" if record.final else "-",
            f"{record.final['test_loss']:.3f}" if record.final else "-",
            f"{speed:.1f}" if speed else "-",
            record.status,
        )
    to.print(table)
    to.print()
    for number, (path, _) in enumerate(chosen, start=1):
        to.print(f"{number}: {path}", style="dim", soft_wrap=True)
    show_agreement(chosen, to)
    for strategy in dict.fromkeys(record.spec.strategy for _, record in chosen):
        different = differences([record for _, record in chosen if record.spec.strategy == strategy])
        if different:
            to.print(f"\nThe runs of {strategy} differ in more than backend and seed:")
        for name, values in different.items():
            to.print(f"  {name}: {', '.join(sorted({str(value) for value in values}))}", soft_wrap=True)


def show_agreement(records: Sequence[tuple[str, RunRecord]], to: Console) -> None:
    """Print how far the predictions of each run are from those of the first run with the same strategy and seed.

    Args:
        records: Path and record of each run, in the order of the table. Runs are named by their number in it, from 1.
        to: The console to print on.
    """
    first: dict[tuple[str, int], tuple[int, str]] = {}
    for number, (path, record) in enumerate(records, start=1):
        one, one_path = first.setdefault((record.spec.strategy, record.spec.seed), (number, path))
        found = agreement(Path(one_path).parent, Path(path).parent) if one != number else None
        if found:
            differ, count, apart = found
            to.print(f"{one} and {number}: {differ} of {count} predictions differ, logits by up to {apart:.1e}")


def show_presets() -> None:
    """Print each preset: its description, its source, the accuracies reported there, and the command that runs it."""
    for name in preset_names():
        values = read_preset(name)
        console.print(f"{name}: {values['description']}", style="bold")
        lines = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        lines.add_column(no_wrap=True, style="dim")
        lines.add_column(overflow="fold")
        lines.add_row("  from", values["source"])
        for expected in values["expected"]:
            lines.add_row("  expect", describe_expected(expected))
        if "notes" in values:
            lines.add_row("  note", " ".join(values["notes"].split()))
        lines.add_row("  run", values["command"])
        console.print(lines, "")


def describe_expected(expected: dict[str, Any]) -> str:
    """Describe in words the accuracy that a text reports for a strategy of a preset.

    >>> describe_expected({"strategy": "scratch", "accuracy": 0.5, "source": "a text"})
    'scratch 0.500; a text'

    Args:
        expected: `strategy`, `accuracy` and `source`; optionally `deviation` with its number of `runs`, and `by_epoch`,
            the accuracy after each epoch.

    Returns:
        The description, in one line.
    """
    deviation = f" ± {expected['deviation']:.3f} ({expected['runs']} runs)" if "deviation" in expected else ""
    epochs = (
        f" (by epoch: {' '.join(f'{value:.3f}' for value in expected['by_epoch'])})" if "by_epoch" in expected else ""
    )
    return f"{expected['strategy']} {expected['accuracy']:.3f}{deviation}{epochs}; {expected['source']}"


def show_study(results: Sequence[Result], names: Sequence[str], to: Console) -> None:
    """Print a table of the trials of a study, the best first, and last those that were not completed.

    Args:
        results: The results of the trials.
        names: The varied fields, which get a column each.
        to: The console to print on.
    """
    table = make_table("trial", *names, "validation accuracy", "epochs", "backend", "ended")
    for result in sorted(results, key=lambda result: (result.outcome != "complete", -(result.accuracy or 0))):
        table.add_row(
            str(result.number),
            *(describe_value(result.values[name]) if name in result.values else "-" for name in names),
            "-" if result.accuracy is None else f"{result.accuracy:.3f}",
            str(result.epochs),
            result.backend,
            result.outcome,
        )
    to.print(table)


def describe_value(value: object) -> str:
    """Write a varied value with at most four significant digits.

    >>> describe_value(0.000123456), describe_value("adam")
    ('0.0001235', 'adam')

    Args:
        value: The value.

    Returns:
        The text.
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_inspection(spec: ExperimentSpec, findings: dict[str, Any], to: Console) -> None:
    """Print tables of the networks' heads and stages, and the start of the source head's hot-dog row.

    Args:
        spec: The experiment.
        findings: The result of `common.runs.description.inspect`.
        to: The console to print on.
    """
    heads = Table("model", "shape of the head's weight", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    lacking = "none: " + (
        "there are no source weights" if spec.weights == "none" else "the source weights have no head"
    )
    for name, shape in findings["head_shapes"].items():
        heads.add_row(name, " x ".join(map(str, shape)) if shape else lacking)
    multiples_of = "learning-rate multiples" + (
        " of the adapters" if any(phase["adapters"] for phase in findings["phases"]) else ""
    )
    stages = Table("stage", "parameters", multiples_of, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for stage, count in findings["parameters_by_stage"].items():
        multiples = [f"{phase['multiples'][stage]:g}" for phase in findings["phases"]]
        stages.add_row(stage, f"{count:,}", ", then ".join(multiples))
    stages.add_row("all", f"{findings['parameters']:,}", "")
    stages.add_row("trained", f"{findings['trained_parameters']:,}", "")
    title = f"{findings['architecture']}, {spec.backend}, weights {spec.weights}, strategy {spec.strategy}"
    to.print(title, style="bold")
    to.print(heads, "\n", stages, sep="")
    row = findings["hotdog"]
    if row:
        numbers = ", ".join(f"{value:.4f}" for value in row["first_values"])
        to.print(
            f"\nrow {row['index']} of the source head is {row['name']!r}: [{numbers}, ...], length {row['norm']:.4f}"
        )
    else:
        to.print("\nno class of the source weights is called hotdog")


def write_grid(path: Path, rows: Sequence[tuple[str, Sequence[Sample]]], side: int = 180) -> None:
    """Write rows of square thumbnails as a PNG file, with a title above each row.

    Args:
        path: The file to write.
        rows: Title and images of each row.
        side: Side of a thumbnail, in pixels.

    Raises:
        UserError: The file cannot be written.
    """
    gap, heading = 10, 34
    width = max(len(samples) for _, samples in rows) * (side + gap) + gap
    sheet = Image.new("RGB", (width, len(rows) * (heading + side + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for row, (title, samples) in enumerate(rows):
        top = row * (heading + side + gap)
        draw.text((gap, top + 7), title, fill="#222222", font=font)
        for column, sample in enumerate(samples):
            thumbnail = ImageOps.fit(read_file(sample), (side, side), Image.Resampling.LANCZOS)
            sheet.paste(thumbnail, (gap + column * (side + gap), top + heading))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, format="PNG")
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written: {error.strerror or error}") from error
