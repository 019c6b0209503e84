"""Read what a report shows of a crosscheck."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.system.errors import UserError


@dataclass(frozen=True)
class Check:
    """A check of a crosscheck, as `common.crosscheck` describes it; None for a distance that is not finite."""

    name: str
    passed: bool
    distances: dict[str, float | None]
    allowed: float | None
    farthest: tuple[str, str, float | None] | None
    note: str


@dataclass(frozen=True)
class Crosscheck:
    """The part of a crosscheck.json that the report shows."""

    path: str
    backends: list[str]
    options: dict[str, Any]
    checks: list[Check]


def read_crosscheck(path: Path) -> Crosscheck:
    """Read the part of a crosscheck.json that the report shows.

    Args:
        path: The file that `scripts.crosscheck` wrote.

    Returns:
        The crosscheck.

    Raises:
        UserError: There is no such file, or it is no crosscheck.
    """
    try:
        content = json.loads(path.read_text())
        options = {str(name): value for name, value in content["options"].items()}
        return Crosscheck(str(path), list(content["backends"]), options, [_check(c) for c in content["checks"]])
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such crosscheck; `python3 -m scripts.crosscheck` makes one") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: not what `python3 -m scripts.crosscheck` writes: {error!r}") from error


def _check(check: Any) -> Check:
    """Return a check of a crosscheck.json, or raise an error where it is none."""
    farthest = check["farthest"]
    return Check(
        name=str(check["name"]),
        passed=bool(check["passed"]),
        distances={str(name): float(value) for name, value in check["distances"].items()},
        allowed=None if check["allowed"] is None else float(check["allowed"]),
        farthest=(str(farthest[0]), str(farthest[1]), float(farthest[2])) if farthest else None,
        note=str(check["note"]),
    )
