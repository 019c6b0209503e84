"""Labels that are likely wrong, on features that a generator draws."""

from __future__ import annotations

import numpy as np
import pytest

from common.audit.labels import Unanswerable, check_answerable, find_suspects, predict


def drawn(classes: int = 3, each: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Features around a centre for each class, and the right labels."""
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(classes), each)
    centres = 5 * np.eye(classes, 8)
    return (centres[labels] + generator.normal(size=(len(labels), 8))).astype(np.float32), labels


def test_planted_labels_are_found_with_the_right_suggestion() -> None:
    features, right = drawn()
    planted = {3: 1, 70: 2, 121: 0, 179: 1}
    given = right.copy()
    given[list(planted)] = list(planted.values())
    suspects = find_suspects(features, given.tolist(), range(len(given)))
    assert {suspect.index for suspect in suspects[:4]} == planted.keys()
    for suspect in suspects[:4]:
        assert suspect.suggested == right[suspect.index]
        assert suspect.confidence > 0.5 > suspect.given_confidence
    # The least confident label comes first.
    confidences = [suspect.given_confidence for suspect in suspects]
    assert confidences == sorted(confidences)


def test_right_labels_are_hardly_suspected() -> None:
    features, right = drawn()
    assert len(find_suspects(features, right.tolist(), range(len(right)))) <= 2


def test_a_copy_does_not_vouch_for_the_label_of_its_source() -> None:
    """In two folds, the copy with the same wrong label would teach the head that it is right."""
    features, given = drawn()
    wrong = [5, 6, 7, 8]
    given[wrong] = 1
    # Far from everything, so that only copies say something about each other.
    features[wrong] += 30 * np.eye(8, dtype=np.float32)[7]
    groups = np.arange(len(given))
    apart = predict(features, given, groups, seed=0)[wrong, 1]
    groups[wrong] = 5
    together = predict(features, given, groups, seed=0)[wrong, 1]
    assert apart.min() > 0.6
    assert together.max() < 0.45


@pytest.mark.parametrize(("labels", "groups", "reason"), [
    ([0, 0, 0], [0, 1, 2], "one class only"),
    ([0, 0, 1], [0, 1, 2], "fewer than two"),
    ([0, 0, 1, 1], [0, 1, 2, 2], "fewer than two"),
])  # fmt: skip
def test_too_little_to_answer_from_is_said(labels: list[int], groups: list[int], reason: str) -> None:
    with pytest.raises(Unanswerable, match=reason):
        check_answerable(labels, groups)


def test_two_different_pictures_a_class_are_enough() -> None:
    check_answerable([0, 0, 1, 1], [0, 1, 2, 3])
    features, _ = drawn(classes=2, each=2)
    find_suspects(features, [0, 0, 1, 1], [0, 1, 2, 3])
