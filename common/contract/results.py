"""The results of training: metrics of each epoch, predictions, and the history of a run."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of an epoch: losses are means, accuracies fractions, over all examples, the last batch included."""

    epoch: int
    """Counted from 1."""
    phase: str
    loss: float
    """Cross-entropy in training mode while the parameters moved, without weight decay, class weights and label
    smoothing, so that runs can be compared.
    """
    train_accuracy: float
    """Top-1 accuracy of the same forward passes."""
    test_loss: float
    test_accuracy: float
    seconds: float
    """Wall time of the training part, in seconds."""
    images_per_second: float
    """Training images divided by `seconds`."""
    validation_loss: float | None = None
    """Loss on the images held back from training; None without any."""
    validation_accuracy: float | None = None
    """Accuracy on them; None without any."""


@dataclass(frozen=True)
class Predictions:
    """The logits of a model for N samples and C classes, in the order of the samples, and what follows from them.

    >>> predictions = Predictions(np.array([[2.0, 0.0], [1.0, 0.0]], np.float32), np.array([0, 1]))
    >>> predictions.top1.tolist(), predictions.accuracy
    ([0, 0], 0.5)
    """

    logits: NDArray[Any]
    """(N, C) float32 (float64 in a float64 experiment)."""
    labels: NDArray[np.int64]
    """(N,) index of the true class."""
    names: tuple[str, ...] = ()
    """(N,) names of the samples' files, for storage; empty while a run is at work."""
    classes: tuple[str, ...] = ()
    """(C,) names of the classes, for storage; empty while a run is at work."""

    @functools.cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C) float64, the softmax of the logits."""
        logits = self.logits.astype(np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
        return softmax

    @functools.cached_property
    def top1(self) -> NDArray[np.int64]:
        """(N,) int64, index of the most probable class."""
        best: NDArray[np.int64] = self.logits.argmax(axis=1)
        return best

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) bool, whether the most probable class is the true one."""
        found: NDArray[np.bool_] = self.top1 == self.labels
        return found

    @property
    def accuracy(self) -> float:
        """Fraction of the samples whose top-1 class is the true one."""
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy over the samples."""
        # Logits that are not finite give NaN, which says enough without a warning.
        with np.errstate(invalid="ignore"):
            shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # Adding 0.0 turns a mean of -0.0 into 0.0.
        return float(-log_probabilities[np.arange(len(self.labels)), self.labels].mean()) + 0.0


@dataclass
class History:
    """The result of training: metrics of every finished epoch, and the predictions of the model that was kept."""

    epochs: list[EpochMetrics] = field(default_factory=list)
    test: Predictions | None = None
    validation: Predictions | None = None
    """None without validation images."""
    kept_epoch: int | None = None
    """The epoch, counted from 1, whose model was kept; None without epochs."""
    stopped_early: bool = False
    planned_epochs: int = 0
    """The epochs that the schedules of the phases ended with: fewer than asked for where a time limit was near."""
    features: dict[str, int] | None = None
    """Number of images whose features were `computed` and were `read`; None where features were not reused."""

    def add(self, metrics: EpochMetrics, validation: Predictions | None, test: Predictions) -> None:
        """Add an epoch, whose model is kept unless another is chosen later."""
        self.epochs.append(metrics)
        self.kept_epoch, self.validation, self.test = metrics.epoch, validation, test
