"""Watches: objects that training reports its progress and results to."""

from __future__ import annotations

from common.contract.results import EpochMetrics, Predictions
from common.system.errors import RunError


class Stopped(RunError):
    """A Watch ended the run before its last epoch, as a sweep does when the run shows no promise."""


class Watch:
    """Receive the progress and results of training, and print a line per epoch, as the book does.

    `scripts.run` uses one that shows more.
    """

    def on_note(self, text: str) -> None:
        """Take note of a decision made for the user; `text` says in a line what it is, and why."""
        print(text)

    def on_start(self, steps: int) -> None:
        """Learn that training begins, with `steps` batches over all epochs, evaluation and features included."""

    def on_progress(self, steps: int, text: str) -> None:
        """Learn that `steps` more batches are done; `text` describes the current work and its speed."""

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Learn that an epoch has ended; `predictions` are those for the test samples."""
        print(describe(metrics))


class Quiet(Watch):
    """A watch that prints notes, but nothing about epochs."""

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Print nothing."""
        pass


class Silent(Quiet):
    """A watch that prints nothing at all."""

    def on_note(self, text: str) -> None:
        """Print nothing."""
        pass


class ForwardingWatch(Watch):
    """A watch that passes every call on to another: the base of watches that do something besides."""

    def __init__(self, shown: Watch) -> None:
        self.shown = shown

    def on_note(self, text: str) -> None:
        """Pass the note on."""
        self.shown.on_note(text)

    def on_start(self, steps: int) -> None:
        """Pass the start on."""
        self.shown.on_start(steps)

    def on_progress(self, steps: int, text: str) -> None:
        """Pass the progress on."""
        self.shown.on_progress(steps, text)

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Pass the epoch on."""
        self.shown.on_epoch(metrics, predictions)


def describe(metrics: EpochMetrics) -> str:
    """Return the line that describes an epoch, with its loss and accuracies."""
    validation = "" if metrics.validation_accuracy is None else f"val acc {metrics.validation_accuracy:.3f}, "
    return (
        f"epoch {metrics.epoch}, loss {metrics.loss:.3f}, train acc {metrics.train_accuracy:.3f}, "
        f"{validation}test acc {metrics.test_accuracy:.3f}"
    )
