"""Jobs of a part: processes in the interpreters of the backends, some of them at the same time.

Only the standard library is imported here.
"""

from __future__ import annotations

import os
import queue
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.cli.sharing import bind, cores_of
from scripts.environments.use import project_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripts.gpu_check.settings import Settings

LAST_LINES = 25
# A job that has fewer cores than this waits for them longer than it would for another job.
CORES_OF_A_JOB = 2


@dataclass(frozen=True)
class Job:
    """One process."""

    name: str
    """Unique in its part, and fit for the name of a file."""
    backend: str
    arguments: tuple[str, ...]
    """The arguments of `python -m scripts.gpu_check.job`, or of `python` if the first is `-m`."""
    device: str
    keeps_compiled: bool = True
    """Whether JAX keeps what it compiles for other jobs, and takes what they have kept."""

    def command(self, settings: Settings) -> list[str]:
        """Return the command line of the process."""
        python = settings.pythons[self.backend]
        if self.arguments[0] == "-m":
            return [python, *self.arguments]
        return [python, "-P", "-m", "scripts.gpu_check.job", *self.arguments]

    def variables(self, settings: Settings) -> dict[str, str]:
        """Return the environment variables of the process: several share the GPU, and one on the CPU sees none."""
        variables = {**project_variables(), "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "NO_COLOR": "1"}
        if self.device == "cpu":
            variables |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        if self.keeps_compiled:
            variables |= {
                "JAX_COMPILATION_CACHE_DIR": str(Path(settings.output) / "work" / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
        return variables


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    name: str
    code: int
    seconds: float
    said: str
    """The end of what it printed."""

    @property
    def done(self) -> bool:
        """Whether it did what it was asked."""
        return self.code == 0


def run_jobs(
    part: str, jobs: Sequence[Job], settings: Settings, together: int, ended: Callable[[Outcome], None]
) -> dict[str, Outcome]:
    """Run jobs, several at a time, each on its share of the cores, with what they print in `logs`.

    Args:
        part: The part, for the names of the logs.
        jobs: The jobs, in the order in which they start.
        settings: The interpreters, and the folder of the logs.
        together: How many may run at the same time; fewer where there are not enough cores for them.
        ended: Called after each, one call at a time.

    Returns:
        The name of each job -> how it ended.
    """
    together = max(1, min(together, len(jobs), len(os.sched_getaffinity(0)) // CORES_OF_A_JOB))
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(together):
        free.put(number)

    def run(job: Job) -> Outcome:
        number = free.get()
        try:
            return run_job(part, job, settings, cores_of(number, together))
        finally:
            free.put(number)

    outcomes = {}
    with ThreadPoolExecutor(together) as pool:
        for outcome in pool.map(run, jobs):
            outcomes[outcome.name] = outcome
            ended(outcome)
    return outcomes


def run_job(part: str, job: Job, settings: Settings, cores: set[int]) -> Outcome:
    """Run one job on some cores.

    Args:
        part: The part, for the name of the log.
        job: The job.
        settings: The interpreters, and the folder of the log.
        cores: The numbers of the cores.

    Returns:
        How it ended.
    """
    log = Path(settings.output) / "logs" / f"{part}-{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            job.command(settings),
            env=job.variables(settings),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        ) as process,
    ):
        bind(process.pid, cores)
        code = process.wait()
    said = log.read_text(errors="replace").splitlines()
    return Outcome(job.name, code, time.perf_counter() - start, "\n".join(said[-LAST_LINES:]))
