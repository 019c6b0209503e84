"""What training gives back: metrics of each epoch, predictions, and the history of a run."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch. Losses are means over examples, accuracies fractions of examples, the last batch included."""

    epoch: int
    """Counted from 1."""
    phase: str
    loss: float
    """Cross-entropy in training mode while the parameters moved: without weight decay, class weights and label
    smoothing, so that runs compare."""
    train_accuracy: float
    """Top-1 of the same passes."""
    test_loss: float
    test_accuracy: float
    seconds: float
    """Wall time of the training part, in seconds."""
    images_per_second: float
    """Training images by `seconds`."""
    validation_loss: float | None = None
    """On the images held back from training; None without any."""
    validation_accuracy: float | None = None


@dataclass(frozen=True)
class Predictions:
    """What a model says of N samples over C classes, in the order of the samples."""

    logits: NDArray[Any]
    """(N, C) float32 (float64 in a float64 experiment)."""
    labels: NDArray[np.int64]
    """(N,)"""
    names: tuple[str, ...] = ()
    """(N,) names of the samples' files, as they are stored; empty while a run is at work."""
    classes: tuple[str, ...] = ()
    """(C,) likewise."""

    @functools.cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, C), the softmax of the logits."""
        logits = self.logits.astype(np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
        return softmax

    @functools.cached_property
    def top1(self) -> NDArray[np.int64]:
        """(N,) index of the most probable class."""
        best: NDArray[np.int64] = self.logits.argmax(axis=1)
        return best

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) whether top-1 is the true class."""
        found: NDArray[np.bool_] = self.top1 == self.labels
        return found

    @property
    def accuracy(self) -> float:
        """Fraction of the samples whose top-1 class is the true one."""
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        # Of logits that are not finite it is NaN, which says enough.
        with np.errstate(invalid="ignore"):
            shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # Adding 0.0 turns -0.0 into 0.0.
        return float(-log_probabilities[np.arange(len(self.labels)), self.labels].mean()) + 0.0


@dataclass
class History:
    """What training left: the metrics of every finished epoch, and the predictions of the model that was kept."""

    epochs: list[EpochMetrics] = field(default_factory=list)
    test: Predictions | None = None
    validation: Predictions | None = None
    """None without validation images."""
    kept_epoch: int | None = None
    """The epoch after which the model was as it is kept; None without epochs."""
    stopped_early: bool = False
    features: dict[str, int] | None = None
    """Images whose features were computed, and whose features were read; None where features were not reused."""
