"""The result of one part, written whenever there is something new, so that a part that is stopped leaves the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scripts.gpu_check.jobs import Outcome


class Report:
    """What a part has found so far."""

    def __init__(self, write: Callable[[dict[str, Any]], None], facts: dict[str, Any]) -> None:
        """Begin an empty report.

        Args:
            write: Is given the content each time.
            facts: What is known at the start: the device and the machine.
        """
        self._write = write
        self.failures: list[str] = []
        self.content: dict[str, Any] = {**facts, "jobs": {}, "failures": self.failures}

    def job(self, outcome: Outcome) -> None:
        """Note how a job ended, with the end of what it printed if it failed."""
        noted: dict[str, Any] = {"seconds": round(outcome.seconds, 1), "code": outcome.code}
        if not outcome.done:
            noted["said"] = outcome.said
            last = outcome.said.splitlines()[-1:] or ["it said nothing"]
            self.failures.append(f"{outcome.name} failed: {last[0]}")
        self.content["jobs"][outcome.name] = noted
        self._write(self.content)

    def add(self, key: str, value: Any) -> None:
        """Note a finding under a name of its own."""
        self.content[key] = value
        self._write(self.content)

    def expect(self, holds: bool, words: str) -> None:
        """Note a failure, in words, unless something holds."""
        if not holds:
            self.failures.append(words)

    def finish(self) -> None:
        """Note whether the part passed, and a summary: the first failures, or that there is none."""
        shown = "; ".join(self.failures[:3]) + ("; ..." if len(self.failures) > 3 else "")
        self.content["passed"] = not self.failures
        self.content["summary"] = shown or self.content.get("summary", "all as expected")
        self._write(self.content)
