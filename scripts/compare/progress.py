"""The live view of a comparison: a progress bar for each backend, and a line for each run that ended."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from scripts.cli.display import console
from scripts.compare.plan import Run
from scripts.compare.processes import LOG


class ComparisonView:
    """A bar for each backend over all its runs; a line for each run that ended is printed above and stays."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.progress = Progress(
            TextColumn("{task.fields[backend]:6}", markup=False), BarColumn(bar_width=24), TaskProgressColumn(),
            TimeRemainingColumn(compact=True), TextColumn("{task.description}", markup=False),
            console=console, transient=True,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}
        for backend in dict.fromkeys(run.spec.backend for run in runs):
            mine = [run for run in runs if run.spec.backend == backend]
            done = sum(run.state == "done" for run in mine)
            self.tasks[backend] = self.progress.add_task(
                f"{done} of {len(mine)} runs are there already" if done else "waiting",
                total=sum(run.steps for run in mine),
                completed=sum(run.steps_done for run in mine),
                backend=backend,
            )

    def __enter__(self) -> ComparisonView:
        done = sum(run.state == "done" for run in self.runs)
        console.print(f"{len(self.runs)} runs" + (f", {done} of them complete already" if done else ""))
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def on_change(self, run: Run, text: str) -> None:
        """Show a run's progress, and if it ended, print how.

        Args:
            run: The run.
            text: What it is doing, or how it ended.
        """
        mine = [other for other in self.runs if other.spec.backend == run.spec.backend]
        what = run.spec.strategy + (f", seed {run.spec.seed}" if len({o.spec.seed for o in mine}) > 1 else "")
        self.progress.update(
            self.tasks[run.spec.backend],
            completed=sum(other.steps if other.state == "failed" else other.steps_done for other in mine),
            description=text if run.state == "waiting" else f"{what}: {text}",
        )
        if run.state in ("done", "failed"):
            style = "red" if run.state == "failed" else ""
            ended = sum(other.state in ("done", "failed") for other in self.runs)
            console.print(Text(f"[{ended}/{len(self.runs)}] {run.label}: {text}", style=style), soft_wrap=True)

    def show_failures(self, runs: Sequence[Run]) -> int:
        """Print the runs that failed, with their logs; return the exit code, 0 if all runs are done, else 1."""
        failed = [run for run in runs if run.state == "failed"]
        if failed:
            console.print(f"\n{len(failed)} of {len(runs)} runs failed:", style="bold red")
        for run in failed:
            console.print(f"{run.label}: {run.error}", style="red", soft_wrap=True)
            if (run.folder / LOG).exists():
                console.print(f"  log: {run.folder / LOG}", style="dim", soft_wrap=True)
        return 0 if all(run.state == "done" for run in runs) else 1
