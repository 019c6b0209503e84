"""The parts of `scripts.crosscheck`: finding backends, running probes, showing the comparison."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

import backends
from common.crosscheck.compare import Check, Probe
from common.crosscheck.scenarios import YARDSTICK_BACKEND
from common.system.errors import RunError, UserError
from common.system.files import write_atomically
from scripts.cli.display import console
from scripts.cli.options import CrosscheckOptions
from scripts.cli.sharing import bind, cores_of, visible_gpus
from scripts.environments.definitions import ready_python
from scripts.environments.use import project_variables


def find_backends(wanted: tuple[str, ...]) -> list[str]:
    """Return the backends to compare, always with torch, which the yardstick needs.

    Args:
        wanted: The backends that the user asks for; none means all whose environment is built.

    Returns:
        The names of at least two backends.

    Raises:
        UserError: A name is no backend, or there is nothing to compare.
    """
    for name in wanted:
        if name not in backends.NAMES:
            raise UserError(f"--backends {name}: the backends are {', '.join(backends.NAMES)}")
    found = [name for name in backends.NAMES if (name in wanted if wanted else ready_python(name) is not None)]
    if YARDSTICK_BACKEND not in found:
        found.insert(0, YARDSTICK_BACKEND)
    if len(found) < 2:
        raise UserError(
            "only one backend's environment is built, so there is nothing to compare; name others to have theirs "
            "built: --backends torch jax"
        )
    return found


def run_probes(options: CrosscheckOptions, runs: Sequence[tuple[str, str]]) -> list[Path]:
    """Run probes, two at a time on a CPU, each on its half of the cores.

    Args:
        options: The options of crosscheck.
        runs: Backend and precision of each probe.

    Returns:
        The paths of the probe files.
    """
    jobs = 2 if options.device == "cpu" or not visible_gpus() else 1
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for job in range(jobs):
        free.put(job)

    def run(backend: str, precision: str) -> Path:
        job = free.get()
        try:
            return run_probe(options, backend, precision, cores_of(job, jobs))
        finally:
            free.put(job)

    with console.status(f"{options.steps} steps of each way to train"), ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, *zip(*runs, strict=True)))


def run_probe(options: CrosscheckOptions, backend: str, precision: str, cores: set[int]) -> Path:
    """Run one backend's probe in its environment.

    Args:
        options: The options of crosscheck.
        backend: The backend.
        precision: `fp32`, or `fp64` for the yardstick.
        cores: The cores that the probe may use.

    Returns:
        The path of the probe file.

    Raises:
        RunError: The probe failed.
    """
    path = options.output / f"probe-{backend}-{precision}.npz"
    path.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "scripts.probe", "--backend", backend, "--precision", precision, "--output", str(path),
        *options.probe_arguments(),
    ]  # fmt: skip
    start = time.perf_counter()
    with subprocess.Popen(command, env={**os.environ, **project_variables()}) as process:
        bind(process.pid, cores)
        code = process.wait()
    if code or not path.exists():
        raise RunError(f"the probe of {backend} failed (exit code {code}); its message is above")
    console.print(f"probed {backend}, {precision}, in {time.perf_counter() - start:.0f} s")
    return path


def show(checks: list[Check], probes: dict[str, Probe]) -> None:
    """Print each check: the relative distance of every backend to the yardstick, and the pair that is farthest apart.

    Args:
        checks: The checks, a line each.
        probes: The probe of each backend, for the columns.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("check", no_wrap=True)
    for backend in probes:
        table.add_column(backend, justify="right")
    table.add_column("allowed", justify="right")
    table.add_column("farthest pair")
    for check in checks:
        pair = f"{check.farthest[0]}-{check.farthest[1]} {check.farthest[2]:.1e}" if check.farthest else ""
        table.add_row(
            Text("ok", style="green") if check.passed else Text("NO", style="bold red"),
            check.name,
            *(f"{check.distances[b]:.1e}" if b in check.distances else "" for b in probes),
            f"{check.allowed:.1e}" if check.allowed is not None else "",
            "; ".join(filter(None, (pair, check.note))),
        )
    console.print()
    console.print(
        "Relative distance of each backend's float32 run to torch's float64 run, and of the farthest pair:\n",
        soft_wrap=True,
    )
    # Where there is no terminal, rich takes 80 columns and would cut the numbers.
    wide = Console(file=console.file, width=max(console.width, 160), highlight=False, markup=False)
    wide.print(table)
    failed = [check for check in checks if not check.passed]
    if failed:
        names = ", ".join(check.name for check in failed)
        console.print(f"\n{len(failed)} of {len(checks)} checks failed: {names}", style="bold red")
    else:
        console.print(f"\nAll {len(checks)} checks passed for {', '.join(probes)}.", style="green")


def write_json(path: Path, options: CrosscheckOptions, checks: list[Check], probes: dict[str, Probe]) -> None:
    """Write the checks, the options and the facts of each backend as a JSON file."""
    content = {
        "passed": all(check.passed for check in checks),
        "options": json.loads(json.dumps(asdict(options), default=str)),
        "backends": {name: probe.facts for name, probe in probes.items()},
        "checks": [asdict(check) for check in checks],
    }
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
    console.print(f"as JSON: {path}", style="dim", soft_wrap=True)
