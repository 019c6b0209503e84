"""Find labels that are likely wrong: a head that has not seen a picture answers for it, and cleanlab weighs answers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Parts of the cross-validation; fewer where a class has fewer pictures.
FOLDS = 5
# Inverse strength of the regularisation of the head, on features of length 1. This, and the choice of as many of the
# least confident labels as confident learning counts, gave the best precision at equal recall; see docs/data-check.md.
INVERSE_REGULARISATION = 2.0


@dataclass(frozen=True)
class Suspect:
    """A label that is likely wrong: index of the picture, the class that is suggested, and two probabilities."""

    index: int
    suggested: int
    confidence: float
    """Probability of the suggested class."""
    given_confidence: float
    """Probability of the class that is given."""


class Unanswerable(Exception):
    """Labels cannot be checked on this data; the message says why."""


def find_suspects(
    features: NDArray[np.float32], labels: Sequence[int], groups: Sequence[int], seed: int = 0
) -> list[Suspect]:
    """Find the labels that are likely wrong.

    Args:
        features: Features of the pictures from a network that was not trained on them, (N, D).
        labels: Their labels, each from 0 on.
        groups: A number for each picture; pictures of one number, which show the same, are never in two folds.
        seed: Seed of the folds.

    Returns:
        The suspects, the most likely wrong first.
    """
    from cleanlab.filter import find_label_issues

    given = np.asarray(labels)
    known = predict(features, given, np.asarray(groups), seed)
    ranked = find_label_issues(
        given, known, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    suspects = []
    for index in map(int, ranked):
        suggested = int(known[index].argmax())
        # cleanlab may doubt a label without having a better one.
        if suggested != given[index]:
            suspects.append(
                Suspect(index, suggested, float(known[index, suggested]), float(known[index, given[index]]))
            )
    return suspects


def check_answerable(labels: Sequence[int], groups: Sequence[int]) -> None:
    """Check that every class has pictures to learn from and others to answer for.

    Args:
        labels: The labels.
        groups: A number for each picture, as in `find_suspects`.

    Raises:
        Unanswerable: There is one class only, or one that has pictures in fewer than two groups.
    """
    counts = _groups_of_each(np.asarray(labels), np.asarray(groups))
    if len(counts) < 2:
        raise Unanswerable("there is one class only")
    if min(counts.values()) < 2:
        raise Unanswerable("a class has fewer than two different pictures")


def _groups_of_each(labels: NDArray[np.int64], groups: NDArray[np.int64]) -> dict[int, int]:
    """Return the number of different groups of each class."""
    return {int(label): len(np.unique(groups[labels == label])) for label in np.unique(labels)}


def predict(
    features: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Return the probability of each class for each picture, from a head that was trained on other pictures: (N, K).

    Args:
        features: (N, D).
        labels: (N,), from 0 on.
        groups: (N,), as in `find_suspects`.
        seed: Seed of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    smallest = min(_groups_of_each(labels, groups).values())
    known = np.zeros((len(labels), int(labels.max()) + 1))
    folds = StratifiedGroupKFold(min(FOLDS, smallest), shuffle=True, random_state=seed)
    head = make_pipeline(Normalizer(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000))
    with warnings.catch_warnings():
        # Where a class is rare, a fold may lack it: its pictures then get no probability for it, and are suspects.
        warnings.simplefilter("ignore")
        for rest, held in folds.split(features, labels, groups):
            head.fit(features[rest], labels[rest])
            known[np.ix_(held, head.classes_)] = head.predict_proba(features[held])
    return known
