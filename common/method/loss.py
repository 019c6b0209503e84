"""The loss that is differentiated, as one table for every framework: class weights and label smoothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.data.folder import Sample
from common.spec.experiment import ExperimentSpec


def target_table(spec: ExperimentSpec, class_counts: Sequence[int] | None = None) -> NDArray[np.float64]:
    """The targets of an example by its label: (classes, classes) float64.

    An example of class k has the loss -sum(table[k] * log_softmax(logits)). Row k is the class's weight times the
    smoothed target, (1 - e) one-hot + e / classes (Szegedy et al. 2015; `torch.nn.CrossEntropyLoss`). Without
    weights and smoothing the table is the identity, and the loss plain cross-entropy.

    The weight is that of the example's own class. `loss_reduction` = mean divides by the number of examples, where
    torch divides by the sum of their weights: so every batch counts by its size, and sum and mean stay in proportion.

    class_counts: training images of each class, which balanced weights need; raises ValueError without them.
    """
    smoothed = (1 - spec.label_smoothing) * np.eye(spec.classes) + spec.label_smoothing / spec.classes
    table: NDArray[np.float64] = class_weights(spec, class_counts)[:, None] * smoothed
    return table


def class_weights(spec: ExperimentSpec, class_counts: Sequence[int] | None) -> NDArray[np.float64]:
    """The weight of each class, (classes,) float64: 1, or balanced: images / (classes * images of the class), so that
    all classes weigh the same and the mean weight of an image is 1."""
    if spec.class_weights == "none":
        return np.ones(spec.classes)
    if class_counts is None or len(class_counts) != spec.classes:
        raise ValueError(f"balanced class weights need the number of training images of each of {spec.classes} classes")
    counts: NDArray[np.float64] = np.asarray(class_counts, np.float64)
    weights: NDArray[np.float64] = counts.sum() / (spec.classes * counts)
    return weights


def class_counts(samples: Sequence[Sample], classes: int) -> list[int]:
    """How many of `samples` belong to each class."""
    return [int(count) for count in np.bincount([sample.label for sample in samples], minlength=classes)]
