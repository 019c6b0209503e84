"""The parts of the GPU check: each runs in a process of its own with a time limit and leaves `gpu-<part>.json`.

Only the standard library is imported here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.environments.definitions import say
from scripts.environments.use import project_variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.gpu_check.settings import Settings

# A rehearsal on a CPU may take this many times as long.
PATIENCE = {"gpu": 1, "cpu": 5}
# Part -> the seconds after which it is stopped. The order is that in which they run: what is worth most comes first.
PARTS = {
    "crosscheck": 240,
    "tests": 180,
    "bench": 240,
    "determinism": 120,
    "resident": 120,
    "precision": 180,
    "memory": 120,
    "suite": 240,
}


@dataclass(frozen=True)
class Result:
    """What became of a part."""

    part: str
    passed: bool
    seconds: float
    summary: str


def run_all(names: Sequence[str], settings: Settings, total: float) -> list[Result]:
    """Run parts one after the other; one that breaks does not stop the others.

    Args:
        names: The parts.
        settings: What they are told.
        total: Seconds after which no further part begins.

    Returns:
        What became of each.
    """
    started, results = time.monotonic(), []
    for name in (name for name in PARTS if name in names):
        left = total - (time.monotonic() - started)
        say(f"{name} ...")
        result = (
            run_part(name, settings, min(PARTS[name] * PATIENCE[settings.device], left))
            if left > 0
            else skip(name, settings, total)
        )
        say(f"{name}: {'ok' if result.passed else 'FAILED'} after {result.seconds:.0f} s: {result.summary}")
        results.append(result)
    return results


def result_file(name: str, settings: Settings) -> Path:
    """Return the path of a part's result."""
    return Path(settings.output) / f"gpu-{name}.json"


def run_part(name: str, settings: Settings, limit: float) -> Result:
    """Run one part in a process of its own.

    Args:
        name: The part.
        settings: What it is told.
        limit: Seconds after which it is stopped, with all processes that it has started.

    Returns:
        What became of it; the same stands in its file.
    """
    file, start = result_file(name, settings), time.perf_counter()
    file.unlink(missing_ok=True)
    with subprocess.Popen(command_of(name, settings), env=project_variables(), start_new_session=True) as process:
        try:
            code: int | None = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            stop(process)
    content = read(file)
    if code != 0 and "error" not in content:
        content["error"] = (
            f"not done after {limit:.0f} seconds, and stopped" if code is None else f"ended with exit code {code}"
        )
    content = {"part": name, "passed": False, **content}
    content["passed"] = content["passed"] is True and code == 0
    content["seconds"] = round(time.perf_counter() - start, 1)
    write(file, content)
    return Result(name, content["passed"], content["seconds"], content.get("error") or content.get("summary", ""))


def command_of(name: str, settings: Settings) -> list[str]:
    """Return the command line of a part's process."""
    return [sys.executable, "-P", "-m", "scripts.gpu_check.part", name, json.dumps(asdict(settings))]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, as far as they are still there."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def skip(name: str, settings: Settings, total: float) -> Result:
    """Note in a part's file that there was no time for it."""
    words = f"not begun: the {total:.0f} seconds were over"
    write(result_file(name, settings), {"part": name, "passed": False, "error": words})
    return Result(name, False, 0.0, words)


def show(results: Sequence[Result]) -> None:
    """Print what became of each part."""
    print()
    for result in results:
        print(f"{result.part:12} {'ok    ' if result.passed else 'FAILED'} {result.seconds:6.0f} s  {result.summary}")


def read(file: Path) -> dict[str, Any]:
    """Read a result; it is empty where a part has left none, or a damaged one."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write(file: Path, content: dict[str, Any]) -> None:
    """Write a result in one step."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(draft, file)
