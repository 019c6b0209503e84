"""Count which classes runs mix up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from common.contract.results import Predictions

SHOWN_CONFUSIONS = 3


@dataclass(frozen=True)
class Confusion:
    """The true and predicted classes of the test images, counted over all runs of a series."""

    matrix: list[list[int]]
    """The number of images of each true class (rows) that were predicted as each class (columns)."""
    most_confused: list[tuple[int, int, int]]
    """The largest counts off the diagonal: true class, predicted class, count."""
    precision: list[float | None]
    """Of each class; None where no image was predicted as it."""
    recall: list[float | None]
    """Of each class; None where no image is of it."""
    images: list[int]
    """The predictions for images of each class."""
    runs: int


def confusion(runs: Sequence[Predictions], classes: int) -> Confusion:
    """Count true and predicted classes over all runs, with the precision and recall of each class.

    With n[t][p] the number of images of class t that were predicted as p, class c has

        precision[c] = n[c][c] / sum_t n[t][c]
        recall[c] = n[c][c] / sum_p n[c][p]

    Args:
        runs: The predictions of each run.
        classes: The number of classes.

    Returns:
        The counts, with up to SHOWN_CONFUSIONS of the largest off the diagonal, and NaN where precision or recall is
        undefined.
    """
    labels = np.concatenate([run.labels for run in runs])
    top1 = np.concatenate([run.top1 for run in runs])
    precision, recall, _, support = precision_recall_fscore_support(
        labels, top1, labels=range(classes), zero_division=np.nan
    )
    matrix = confusion_matrix(labels, top1, labels=range(classes))
    wrong = matrix - np.diag(np.diag(matrix))
    places = np.argsort(-wrong, axis=None, kind="stable")[: min(SHOWN_CONFUSIONS, np.count_nonzero(wrong))]
    return Confusion(
        matrix=matrix.tolist(),
        most_confused=[(int(p // classes), int(p % classes), int(wrong.flat[p])) for p in places],
        precision=precision.tolist(),
        recall=recall.tolist(),
        images=support.tolist(),
        runs=len(runs),
    )
