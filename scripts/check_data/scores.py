"""What `scripts.check_data.score` does: precision and recall of a check of a planted folder."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from common.system.errors import UserError
from scripts.check_data.planted import KINDS, TRUTH

COMMAND = "check_data.score"


@dataclass
class ScoreOptions:
    """Print precision and recall of a check of a planted folder.

    A pair of duplicates that was not planted counts as false, although it may be one that the data had before.
    """

    planted: Annotated[Path, tyro.conf.Positional]
    """The folder that scripts.check_data.plant has written."""
    check: Annotated[Path, tyro.conf.Positional]
    """The check.json of scripts.check_data on that folder."""


class Score(NamedTuple):
    """How often something was planted, how often it was reported, and how often both."""

    planted: int
    reported: int | None
    """None where a report cannot be told to be of this kind."""
    right: int

    @property
    def precision(self) -> float | None:
        """Share of what was reported that was planted."""
        return self.right / self.reported if self.reported else None

    @property
    def recall(self) -> float | None:
        """Share of what was planted that was reported."""
        return self.right / self.planted if self.planted else None


def run(arguments: list[str]) -> int:
    """Print the table and return the exit code."""
    from scripts.cli.display import console, make_table

    options = tyro.cli(ScoreOptions, prog=f"python -m scripts.{COMMAND}", args=arguments)
    table = make_table("finding", "planted", "reported", "right", "precision", "recall")
    for name, score in scores(read(options.planted / TRUTH), read(options.check)).items():
        shares = (f"{share:.2f}" if share is not None else "" for share in (score.precision, score.recall))
        reported = "" if score.reported is None else str(score.reported)
        table.add_row(name, str(score.planted), reported, str(score.right), *shares)
    console.print(table)
    return 0


def read(path: Path) -> dict[str, Any]:
    """Read a JSON file; raises UserError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not what scripts.check_data writes")
    return content


def scores(truth: dict[str, Any], check: dict[str, Any]) -> dict[str, Score]:
    """Count what was found.

    Args:
        truth: The content of planted.json.
        check: The content of check.json.

    Returns:
        Finding -> its score.
    """
    origin = {entry["copy"]: entry["source"] for entry in truth["copies"]}
    group = {name: number for number, found in enumerate(check["duplicates"]) for name in found["pictures"]}

    def found(entry: dict[str, Any]) -> bool:
        """Return whether a copy is reported as the same as its source."""
        return entry["copy"] in group and group[entry["copy"]] == group.get(entry["source"])

    by_kind = defaultdict(list)
    for entry in truth["copies"]:
        by_kind[entry["kind"]].append(found(entry))
    counted = {
        f"duplicates, {kind}": Score(len(by_kind[kind]), None, sum(by_kind[kind])) for kind in KINDS if by_kind[kind]
    }
    pairs = [(pair["first"], pair["second"]) for entry in check["duplicates"] for pair in entry["pairs"]]
    right = sum(origin.get(first, first) == origin.get(second, second) for first, second in pairs)
    # A picture has one copy at most, so that planted pairs and planted copies are as many.
    counted["duplicates, all"] = Score(len(origin), len(pairs), right)
    leaked = [entry for entry in truth["copies"] if entry["between_splits"]]
    reported = sum(entry["between_splits"] for entry in check["duplicates"])
    counted["duplicates between train and test"] = Score(len(leaked), reported, sum(map(found, leaked)))
    suspects = [suspect["picture"] for suspect in check["labels"]["suspects"]]
    for name, chosen in (("wrong labels", suspects), ("the first half of these", suspects[: len(suspects) // 2])):
        counted[name] = Score(len(truth["wrong"]), len(chosen), len(set(chosen) & truth["wrong"].keys()))
    return counted
