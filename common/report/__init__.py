"""The comparison of runs as one page: `report.html`, the same as `report.md`, and their numbers as `report.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.report import page, pictures, runs
from common.report.collect import collect
from common.runs.record import RunRecord
from common.system.files import write_atomically


def build(
    records: Mapping[Path, RunRecord],
    folder: Path,
    crosscheck: Path | None = None,
    command: Sequence[str] = (),
    failures: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Write the report of some runs into `folder`; its files under "html", "md" and "json".

    `records` are by the path of their record.json, beside which predictions.npz lies when a run is complete; they may
    come from other machines. `crosscheck` is a crosscheck.json, `command` what made the report, and `failures` the
    runs that left no record, with why. Photographs are shown where the data is on this machine; none is downloaded.
    Raises UserError for a crosscheck that is none; what single runs lack is said in the report.
    """
    records = runs.in_order(records)
    report = collect(records, crosscheck, command, failures)
    shown = {group["number"]: _pictures(group, report, records) for group in report["data"]}
    contents = {
        "json": json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "md": page.markdown(report),
        "html": page.html(report, shown),
    }
    paths = {kind: folder / f"report.{kind}" for kind in ("html", "md", "json")}
    for kind, content in contents.items():
        write_atomically(paths[kind], content.encode("utf-8"))
    return paths


def _pictures(
    group: Mapping[str, Any], report: Mapping[str, Any], records: Mapping[Path, RunRecord]
) -> dict[str, str] | None:
    """Thumbnails of the photographs that the group's parts show; None where they are not on this machine."""
    parts = [part for part in (*group["disagreements"].values(), *group["mistakes"].values()) if part]
    names = [card["name"] for part in parts for card in part["shown"]]
    if not names:
        return {}
    members = [record for number, record in enumerate(records.values(), 1) if number in group["runs"]]
    data = pictures.find_data(members)
    return pictures.thumbnails(data, names) if data else None
