"""Who is told how training goes."""

from __future__ import annotations

from common.contract.results import EpochMetrics, Predictions
from common.system.errors import RunError


class Stopped(RunError):
    """A Watch ended the run before its last epoch, as a sweep does that sees no promise in it."""


class Watch:
    """Is told how training goes. This one prints a line an epoch, like the book's; `scripts.run` shows more."""

    def on_note(self, text: str) -> None:
        """Something was decided for the user; `text` is a line that says what and why."""
        print(text)

    def on_start(self, steps: int) -> None:
        """Training begins; `steps` is the number of batches over all epochs, evaluation and features included."""

    def on_progress(self, steps: int, text: str) -> None:
        """`steps` more batches are done; `text` describes what is being done, with its speed."""

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """An epoch ended; `predictions` are those of the test samples."""
        print(describe(metrics))


class Quiet(Watch):
    """Says nothing of epochs."""

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        pass


class Silent(Quiet):
    """Says nothing at all."""

    def on_note(self, text: str) -> None:
        pass


class ForwardingWatch(Watch):
    """Passes everything on to another watch; for watches that do something besides."""

    def __init__(self, shown: Watch) -> None:
        self.shown = shown

    def on_note(self, text: str) -> None:
        self.shown.on_note(text)

    def on_start(self, steps: int) -> None:
        self.shown.on_start(steps)

    def on_progress(self, steps: int, text: str) -> None:
        self.shown.on_progress(steps, text)

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        self.shown.on_epoch(metrics, predictions)


def describe(metrics: EpochMetrics) -> str:
    """The line of an epoch."""
    validation = "" if metrics.validation_accuracy is None else f"val acc {metrics.validation_accuracy:.3f}, "
    return (
        f"epoch {metrics.epoch}, loss {metrics.loss:.3f}, train acc {metrics.train_accuracy:.3f}, "
        f"{validation}test acc {metrics.test_accuracy:.3f}"
    )
