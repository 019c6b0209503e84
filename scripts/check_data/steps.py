"""The steps of `scripts.check_data`: measuring, features from a backend's environment, the page, the terminal."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.audit import features, labels, page, pictures, summary
from common.audit.clean import Kept
from common.audit.duplicates import group_numbers
from common.audit.findings import Audit, to_dict
from common.data.folder import ImageData, Sample, Skipped
from common.network import sources
from common.runs.run_folder import free_folder
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError, UserError
from common.system.files import check_place, write_atomically
from common.system.machine import available_cores, now
from scripts.check_data.features import COMMAND, write_request
from scripts.check_data.options import CheckDataOptions
from scripts.cli.display import console, make_table
from scripts.environments.use import project_variables

FORMAT = 1
HTML, JSON = "check.html", "check.json"


def source_network(options: CheckDataOptions) -> ExperimentSpec:
    """Return the experiment whose source network gives the features; its weights are read once, to be sure of them.

    Args:
        options: The options.

    Returns:
        The experiment.

    Raises:
        UserError: There are no such weights, or they have learned nothing.
    """
    if options.weights == "none":
        raise UserError("--weights none: a network that has learned nothing knows no labels; --no-labels needs none")
    spec = features.spec_for(options.backend, options.weights, options.device, workers(options))
    sources.read_for(spec)
    return spec


def workers(options: CheckDataOptions) -> int:
    """Return how many threads decode pictures."""
    return options.workers or available_cores()


def output_folder(options: CheckDataOptions, data: ImageData) -> Path:
    """Return the folder of the page; nothing is made yet.

    Args:
        options: The options.
        data: The data, into which nothing is written.

    Returns:
        The folder.

    Raises:
        UserError: A check is there already, the folder cannot be made, or it would lie among the pictures.
    """
    name = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in data.name).strip("-.")
    output = options.output or free_folder(Path("runs"), f"check-{name[:60] or 'data'}")
    if any((output / file).exists() for file in (HTML, JSON)) and not options.overwrite:
        raise UserError(f"--output {output}: there is a check already; choose another folder, or add --overwrite")
    check_place("--output", output)
    folders = [("--output", output)]
    if options.write_clean and options.write_clean.suffix.lower() != ".csv":
        folders.append(("--write-clean", options.write_clean))
    for option, folder in folders:
        if folder.resolve().is_relative_to(data.root.resolve()):
            raise UserError(f"{option} {folder}: lies in the data, where it could be taken for a class; choose another")
    return output


def measure(data: ImageData, options: CheckDataOptions) -> tuple[list[pictures.Picture], list[Skipped]]:
    """Measure the pictures, with a progress bar, and return them and those that could not be read any more.

    Args:
        data: The data.
        options: The options.

    Returns:
        As `common.audit.pictures.measure`.

    Raises:
        UserError: No picture can be read.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("measuring pictures", total=len(data.train) + len(data.validation) + len(data.test))
        found, vanished = pictures.measure(
            data, workers(options), lambda done: progress.update(task, completed=done)
        )  # fmt: skip
    if not found:
        raise UserError(f"{data.root}: no picture can be read any more")
    return found, vanished


def check_labels(audit: Audit, spec: ExperimentSpec | None) -> Audit:
    """Return the findings with the labels that are likely wrong, or with the reason why they were not checked.

    Args:
        audit: The findings that need no network.
        spec: The experiment of the source network, None to leave labels unchecked.
    """
    if spec is None:
        return dataclasses.replace(audit, unchecked="--no-labels was given")
    samples = [picture.sample for picture in audit.pictures]
    groups = group_numbers(len(samples), [pair for group in audit.groups for pair in group.pairs])
    given = [sample.label for sample in samples]
    try:
        labels.check_answerable(given, groups)
        suspects = labels.find_suspects(compute_features(spec, samples), given, groups)
    except labels.Unanswerable as reason:
        return dataclasses.replace(audit, unchecked=str(reason))
    return dataclasses.replace(audit, suspects=tuple(suspects))


def compute_features(spec: ExperimentSpec, samples: Sequence[Sample]) -> NDArray[np.float32]:
    """Compute features in the environment of the backend.

    Args:
        spec: The experiment of the source network.
        samples: The pictures.

    Returns:
        Their features, (N, features) float32.

    Raises:
        RunError: The process failed; its own message is on the terminal.
    """
    with tempfile.TemporaryDirectory(prefix="fine-tuning-features-") as folder:
        request, output = Path(folder, "request.json"), Path(folder, "features.npy")
        write_request(request, spec, samples)
        command = [
            sys.executable, "-P", "-m", f"scripts.{COMMAND}", "--backend", spec.backend, "--request", str(request),
            "--output", str(output),
        ]  # fmt: skip
        code = subprocess.run(command, env={**os.environ, **project_variables()}, check=False).returncode
        if code or not output.exists():
            raise RunError(
                f"the features could not be computed with {spec.backend} (exit code {code}; its message is above). "
                "Choose another --backend, or leave the labels unchecked with --no-labels"
            )
        found: NDArray[np.float32] = np.load(output, allow_pickle=False)
    return found


def write_page(
    audit: Audit, kept: Kept | None, output: Path, options: CheckDataOptions, arguments: Sequence[str]
) -> dict[str, Path]:
    """Write check.html and check.json.

    Args:
        audit: The findings.
        kept: What to keep, if it was asked for.
        output: The folder.
        options: The options.
        arguments: The arguments of the command, as they were given.

    Returns:
        The paths, under "html" and "json".
    """
    facts: dict[str, Any] = {
        "format": FORMAT,
        "made": now(),
        "command": " ".join(["python", "-m", "scripts.check_data", *arguments]),
        "network": None if audit.unchecked is not None else _network(options),
    }
    content = to_dict(audit, facts)
    if kept is not None:
        content["left_out"] = kept.left_out
    clean = clean_line(kept, options.write_clean) if kept and options.write_clean else None
    paths = {"html": output / HTML, "json": output / JSON}
    write_atomically(paths["json"], (json.dumps(content, indent=1) + "\n").encode("ascii"))
    write_atomically(paths["html"], page.html(audit, {**facts, "clean": clean}).encode("utf-8", "replace"))
    return paths


def _network(options: CheckDataOptions) -> str:
    return (
        f"The features are those of the source network ({options.weights}, in {options.backend}). A head that learned "
        "from four fifths of the pictures answered for the other fifth, in turns, and cleanlab weighed the answers. "
        "Many a label here is right and only hard: docs/data-check.md has measured how many."
    )


def clean_line(kept: Kept, target: Path) -> str:
    """Return the line that says what was written to keep, and what it leaves out."""
    form = "table" if target.suffix.lower() == ".csv" else "folder of links"
    return (
        f"{len(kept.pictures):,} pictures to keep, {len(kept.left_out):,} left out: the {form} {target}. "
        f"Use it with --data {target}"
    )


def show(audit: Audit, shown: Console) -> None:
    """Print what was found, the most important first."""
    shown.print(f"{audit.data.name}: {summary.about(audit)}", style="bold", soft_wrap=True)
    found = [line for line in summary.lines(audit) if line.count]
    if not found:
        shown.print("Nothing was found that needs mending.", style="green")
    table = make_table("", "")
    table.show_header = False
    table.columns[1].justify = "left"
    for line in found:
        table.add_row(summary.count_with_noun(line), line.what if line.key != "balance" else line.advice)
    shown.print(table)
    if audit.unchecked is not None:
        shown.print(f"Labels were not checked: {audit.unchecked}.", style="yellow", soft_wrap=True)
