"""Compare runs on one page: `report.html`, the same as `report.md`, and the numbers behind it as `report.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.report import page, pictures, runs
from common.report.collect import collect
from common.report.data import Group
from common.runs.record import RunRecord
from common.system.files import write_atomically


def build(
    records: Mapping[Path, RunRecord],
    folder: Path,
    crosscheck: Path | None = None,
    command: Sequence[str] = (),
    failures: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Write the report of some runs into a folder.

    Photographs are shown where the data is on this machine; none is downloaded. The report itself says what single
    runs lack; only a file that is no crosscheck raises UserError.

    Args:
        records: The records by the path of their record.json, beside which predictions.npz lies when a run is
            complete. They may come from other machines.
        folder: The folder for report.html, report.md and report.json.
        crosscheck: A crosscheck.json whose table the report shows, or None.
        command: The command that made the report, as its arguments.
        failures: The error of each run that left no record, by the name of the run.

    Returns:
        The paths of the files, under "html", "md" and "json".
    """
    records = runs.in_order(records)
    report = collect(records, crosscheck, command, failures)
    shown = {group.number: _pictures(group, records) for group in report.data}
    contents = {
        "json": json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "md": page.markdown(report),
        "html": page.html(report, shown),
    }
    paths = {kind: folder / f"report.{kind}" for kind in ("html", "md", "json")}
    for kind, content in contents.items():
        write_atomically(paths[kind], content.encode("utf-8"))
    return paths


def _pictures(group: Group, records: Mapping[Path, RunRecord]) -> dict[str, str] | None:
    """Return thumbnails of the photographs that a group shows, by name, or None where this machine lacks them."""
    parts = [part for part in (*group.disagreements.values(), *group.mistakes.values()) if part]
    names = [card.name for part in parts for card in part.shown]
    if not names:
        return {}
    members = [record for number, record in enumerate(records.values(), 1) if number in group.runs]
    data = pictures.find_data(members)
    return pictures.thumbnails(data, names) if data else None
