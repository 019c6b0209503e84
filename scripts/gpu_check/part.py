"""The process of one part of the GPU check: `python -m scripts.gpu_check.part NAME SETTINGS`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from common.runs.description import describe_machine
from scripts.gpu_check import comparisons, crosscheck, measures, suites
from scripts.gpu_check.parts import result_file, write
from scripts.gpu_check.report import Report
from scripts.gpu_check.settings import Settings

RUN: dict[str, Callable[[Settings, Report], None]] = {
    "tests": suites.tests,
    "suite": suites.suite,
    "crosscheck": crosscheck.crosscheck,
    "determinism": comparisons.determinism,
    "resident": comparisons.resident,
    "precision": comparisons.precision,
    "bench": measures.bench,
    "memory": measures.memory,
}


def main(arguments: list[str]) -> int:
    """Run the part and return the exit code, 0 if its result is whole, whether it passed or not."""
    name, text = arguments
    settings = Settings(**json.loads(text))
    file = result_file(name, settings)
    facts: dict[str, Any] = {"device": settings.device, "gpu": describe_gpu(), "machine": describe_machine()}
    report = Report(lambda content: write(file, {"part": name, **content}), facts)
    RUN[name](settings, report)
    report.finish()
    return 0


def describe_gpu() -> list[str]:
    """Return name, memory and driver of each GPU in nvidia-smi's words; nothing where it is missing or fails."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return []
    return listed.stdout.splitlines() if listed.returncode == 0 else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
