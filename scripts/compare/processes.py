"""Run the runs of a comparison, each in a process of its own in its backend's environment.

Missing environments are built while the runs of the others go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.runs.record import PREDICTIONS, RECORD, RunRecord, read_record
from common.system.errors import UserError
from scripts.cli.sharing import bind, cores_of, gpus_of, visible_gpus
from scripts.compare.plan import Run
from scripts.environments import definitions, use

LOG = "log.txt"
# A run that is told to end needs time to finish its step and mark its record.
SECONDS_TO_END = 60
# `scripts.run` finds its environment by itself, so this interpreter can start it.
RUN_COMMAND = (sys.executable, "-P", "-m", "scripts.run")
# The smallest environment first, so that runs can begin soon.
BUILD_ORDER = ("mxnet", "jax", "keras", "torch")


@dataclass
class Comparison:
    """The work on runs: `jobs` at a time, each with its share of the cores, and of the GPUs if there are several."""

    runs: Sequence[Run]
    jobs: int
    on_change: Callable[[Run, str], None]
    """Called from any thread with a run whose state or progress changed, and a text about it."""
    builds: dict[str, str] = field(default_factory=dict)
    """Backend -> state of its environment: `ready`, `building`, `waiting`, or why there is none."""

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.stopped = False
        for backend in {run.spec.backend for run in self.runs if run.state != "done"}:
            self.builds[backend] = "ready" if definitions.ready_python(backend) else "waiting"

    def work(self) -> None:
        """Build the missing environments and run what is not done; return when every run is done or failed."""
        threads = [threading.Thread(target=self.build_environments, daemon=True)]
        threads += [threading.Thread(target=self.run_some, args=(job,), daemon=True) for job in range(self.jobs)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                # A join without a timeout would not see an interrupt that another thread passes on.
                while thread.is_alive():
                    thread.join(timeout=0.2)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the processes, which mark their records as interrupted; kill those that take over SECONDS_TO_END."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
            processes = list(self.processes.values())
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(timeout=SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()

    def build_environments(self) -> None:
        """Build the missing environments one after the other, the smallest first."""
        # pip's progress bars would write over those of the runs.
        os.environ.setdefault("PIP_QUIET", "2")
        for backend in BUILD_ORDER:
            if self.builds.get(backend) != "waiting" or self.stopped:
                continue
            self.say_of(backend, "building")
            try:
                use.ensure(backend)
            except Exception as error:  # whatever it is, the runs that wait for it must end
                self.say_of(backend, str(error) or type(error).__name__)
            else:
                self.say_of(backend, "ready")

    def say_of(self, backend: str, state: str) -> None:
        """Set the state of a backend's environment; if it cannot be had, mark its waiting runs as failed.

        Args:
            backend: The backend.
            state: `ready`, `building`, or why there is no environment.
        """
        with self.changed:
            self.builds[backend] = state
            waiting = [run for run in self.runs if run.spec.backend == backend and run.state == "waiting"]
            if state not in ("ready", "building"):
                for run in waiting:
                    run.state, run.error = "failed", state
            self.changed.notify_all()
        for run in waiting[:1]:
            self.on_change(run, "building the environment" if state == "building" else run.error)

    def run_some(self, job: int) -> None:
        """Take one waiting run after the other until there is none."""
        while (run := self.take()) is not None:
            try:
                self.run_one(run, job)
            except (OSError, UserError) as error:
                run.state, run.error = "failed", str(error)
                self.on_change(run, run.error)
            with self.changed:
                self.changed.notify_all()

    def take(self) -> Run | None:
        """Take the next run whose environment is ready, and wait for one if need be.

        Runs of backends that have none at work go first.

        Returns:
            The run, marked as running, or None when no run is waiting or the comparison was stopped.
        """
        with self.changed:
            while not self.stopped:
                waiting = [run for run in self.runs if run.state == "waiting"]
                if not waiting:
                    return None
                able = [run for run in waiting if self.builds[run.spec.backend] == "ready"]
                if able:
                    busy = {run.spec.backend for run in self.runs if run.state == "running"}
                    run = next((run for run in able if run.spec.backend not in busy), able[0])
                    run.state = "running"
                    return run
                self.changed.wait(timeout=1)
        return None

    def run_one(self, run: Run, job: int) -> None:
        """Run one process to its end; its messages go into a log beside its record.

        Args:
            run: The run.
            job: Number of the job that runs it, counted from 0, which decides on its cores and GPUs.
        """
        self.on_change(run, "starting")
        run.folder.mkdir(parents=True, exist_ok=True)
        run.started = True
        for stale in (RECORD, PREDICTIONS):
            # A run that fails at once must not be taken for an earlier one.
            (run.folder / stale).unlink(missing_ok=True)
        command = [*RUN_COMMAND, *run.arguments, "--overwrite", "--progress", "json"]
        started = time.perf_counter()
        with (run.folder / LOG).open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, env=self.variables(job), stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                errors="backslashreplace",
            )  # fmt: skip
            with self.changed:
                self.processes[process.pid] = process
                if self.stopped:
                    process.terminate()
            bind(process.pid, cores_of(job, self.jobs))
            for event in read_events(process, log):
                run.steps_done += event["steps"]
                self.on_change(run, event["text"])
            code = process.wait()
        with self.changed:
            del self.processes[process.pid]
        if code == 0:
            run.state, run.steps_done = "done", run.steps
            accuracy = read_record(run.folder).final["test_accuracy"]
            self.on_change(run, f"test accuracy {accuracy:.3f} after {time.perf_counter() - started:.0f} s")
        elif not self.stopped:
            run.state, run.error = "failed", error_of(run, code)
            self.on_change(run, run.error)

    def variables(self, job: int) -> dict[str, str]:
        """Return the environment variables of the processes of a job, with its share of the GPUs."""
        variables = {**use.project_variables(), "PYTHONUNBUFFERED": "1"}
        if self.jobs > 1:
            # Threads that wait for work must not take the cores of the other jobs.
            variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            gpus = visible_gpus()
            if gpus:
                devices = max(run.spec.devices for run in self.runs)
                variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of(job, gpus, devices))
                # JAX and TensorFlow would each take the whole GPU.
                variables.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
                variables.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        return variables


def read_events(process: subprocess.Popen[str], log: Any) -> Iterator[dict[str, Any]]:
    """Yield the progress that a process prints, as `steps` and `text`; write everything else it prints to the log."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
            yield {"steps": int(event["steps"]), "text": str(event["text"])}
        except (ValueError, TypeError, KeyError):
            # Flush, so that it stands before the error that the process itself writes to the log on stderr.
            log.write(line)
            log.flush()


def error_of(run: Run, code: int) -> str:
    """Return why a run failed.

    Args:
        run: The run.
        code: The exit code of its process.

    Returns:
        The error in its record, else the last error in its log, else the last line of the log, else its exit code.
    """
    try:
        error = read_record(run.folder).error
        if error:
            return error
    except UserError:
        pass
    lines = (run.folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"it ended with exit code {code}"])[-1]


def records_of(runs: Sequence[Run]) -> dict[Path, RunRecord]:
    """Return the records that the runs left, whatever their status.

    Args:
        runs: The runs.

    Returns:
        Path of the record -> record, without earlier records that no run of this comparison replaced.
    """
    paths = [run.folder / RECORD for run in runs if run.started or run.state == "done"]
    return {path: read_record(path) for path in paths if path.exists()}
