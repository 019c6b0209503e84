"""The loss that is differentiated, as one table of targets for every framework: class weights, label smoothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.data.folder import Sample
from common.spec.experiment import ExperimentSpec


def target_table(spec: ExperimentSpec, class_counts: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Return the targets of an example by its label.

    With the class weights w and e = `label_smoothing`, row k of the table and the loss of an example of class k are

        table[k, j] = w[k] * ((1 - e) * (j == k) + e / classes)
        loss = -sum_j table[k, j] * log_softmax(logits)[j]

    (Szegedy et al. 2015; `torch.nn.CrossEntropyLoss`). Without weights and smoothing the table is the identity, and
    the loss plain cross-entropy.

    The weight is that of the example's own class. `loss_reduction` = mean divides by the number of examples, where
    torch divides by the sum of their weights: so every batch counts by its size, and sum and mean stay in proportion.

    >>> target_table(ExperimentSpec(label_smoothing=0.1))
    array([[0.95, 0.05],
           [0.05, 0.95]])

    Args:
        spec: The experiment.
        class_counts: Training images of each class; balanced weights raise ValueError without them.

    Returns:
        The table, (classes, classes) float64.
    """
    smoothed = (1 - spec.label_smoothing) * np.eye(spec.classes) + spec.label_smoothing / spec.classes
    table: NDArray[np.float64] = class_weights(spec, class_counts)[:, None] * smoothed
    return table


def class_weights(spec: ExperimentSpec, class_counts: Sequence[int] | None) -> NDArray[np.float64]:
    """Return the weight of each class in the loss.

    Balanced weights are images / (classes * images of the class), so that all classes weigh the same and the mean
    weight of an image is 1.

    >>> class_weights(ExperimentSpec(class_weights="balanced"), [30, 10])
    array([0.66666667, 2.        ])

    Args:
        spec: The experiment, for `class_weights` and the number of classes.
        class_counts: Training images of each class; only balanced weights need them.

    Returns:
        The weights, (classes,) float64; all 1 where the spec asks for none.

    Raises:
        ValueError: Balanced weights lack the count of a class.
    """
    if spec.class_weights == "none":
        return np.ones(spec.classes)
    if class_counts is None or len(class_counts) != spec.classes:
        raise ValueError(f"balanced class weights need the number of training images of each of {spec.classes} classes")
    counts: NDArray[np.float64] = np.asarray(class_counts, np.float64)
    weights: NDArray[np.float64] = counts.sum() / (spec.classes * counts)
    return weights


def class_counts(samples: Sequence[Sample], classes: int) -> list[int]:
    """Return how many of `samples` belong to each class, in the order of the labels."""
    return [int(count) for count in np.bincount([sample.label for sample in samples], minlength=classes)]
