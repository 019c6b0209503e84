"""Share the machine among processes that work at the same time: how many, and the cores and GPUs of each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence


def default_jobs(devices: int) -> int:
    """Return the default number of runs at the same time.

    Args:
        devices: The devices of a run.

    Returns:
        As many as there are GPUs for, with `devices` each. Where the GPUs are too few it is two for a run on one
        device, since on few cores two runs of one thread get further than one of two; one for a run on several devices.
    """
    return len(visible_gpus()) // devices or (2 if devices == 1 else 1)


def gpus_of(job: int, gpus: Sequence[str], devices: int) -> list[str]:
    """Return the GPUs of a job; jobs beyond those that there are GPUs for share them.

    >>> gpus_of(1, ["0", "1", "2", "3"], devices=2), gpus_of(2, ["0", "1", "2", "3"], devices=2)
    (['2', '3'], ['0', '1'])

    Args:
        job: Number of the job, counted from 0.
        gpus: The names of all GPUs.
        devices: GPUs for each job.

    Returns:
        The names of the job's GPUs.
    """
    jobs = max(1, len(gpus) // devices)
    return list(gpus[job % jobs * devices :][:devices])


def cores_of(job: int, jobs: int) -> set[int]:
    """Return the cores of one of several jobs, every `jobs`-th core; where jobs outnumber the cores, they share them.

    Args:
        job: Number of the job, counted from 0.
        jobs: Number of jobs.

    Returns:
        The numbers of the cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[job::jobs]) or {cores[job % len(cores)]}


def bind(pid: int, cores: set[int]) -> None:
    """Keep a process that was just started, and those it will start, on some cores.

    Frameworks then take as many threads as there are cores among these.

    Args:
        pid: The process; one that has ended already is ignored.
        cores: The numbers of the cores; none leaves the process as it is.
    """
    if cores:
        try:
            os.sched_setaffinity(pid, cores)
        except ProcessLookupError:
            return


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listed = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, check=False)
    gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number, _ in enumerate(gpus)] if listed.returncode == 0 else []
