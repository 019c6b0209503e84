"""The report's intervals and tests against published numbers and against simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from common.report import statistics


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_intervals(correct: int, images: int, low: float, high: float) -> None:
    assert statistics.wilson(correct, images) == pytest.approx((low, high), abs=5e-5)


def test_a_single_seed_has_no_deviation() -> None:
    assert statistics.mean_and_deviation([0.5]) == (0.5, None)
    mean, deviation = statistics.mean_and_deviation([0.1, 0.2, 0.6])
    assert mean == pytest.approx(0.3)
    assert deviation == pytest.approx(np.sqrt(0.07))


def test_holm_gives_the_textbook_example_in_the_given_order() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_mcnemar_counts_only_images_that_one_alone_has_right() -> None:
    first, second = np.ones((1, 100), bool), np.ones((1, 100), bool)
    first[0, :5] = False
    second[0, 5:20] = False
    found = statistics.compare(first, second)
    assert (found.better, found.worse) == (15, 5)
    # Twice the chance of at most 5 heads among 20.
    assert found.p_mcnemar == pytest.approx(0.04139, abs=1e-5)
    assert found.difference.mean == pytest.approx(0.10)


def test_one_seed_is_the_paired_interval_over_images() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random((1, 300)) < 0.8, generator.random((1, 300)) < 0.7
    apart = first[0].astype(float) - second[0]
    expected = stats.ttest_1samp(apart, 0)
    found = statistics.difference(first, second)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, expected.pvalue))


def test_no_difference_has_no_width() -> None:
    same = np.random.default_rng(0).random((3, 50)) < 0.8
    assert statistics.difference(same, same) == statistics.Difference(0.0, 0.0, 0.0, 1.0)
    assert statistics.compare(same, same).p == 1.0


def test_seeds_that_repeat_each_other_are_no_further_evidence() -> None:
    """Six images in one seed are six images in five equal seeds; pooled counts alone would say p < 1e-8."""
    first = np.ones((1, 200), bool)
    second = first.copy()
    second[0, :6] = False
    once = statistics.compare(first, second)
    five = statistics.compare(first.repeat(5, axis=0), second.repeat(5, axis=0))
    assert five.p_mcnemar < 1e-8
    assert five.p == pytest.approx(once.difference.p)


def test_a_lucky_seed_is_no_difference_of_frameworks() -> None:
    """One framework wins one seed by far and the others are even: McNemar's test alone is fooled."""
    generator = np.random.default_rng(3)
    second = generator.random((3, 600)) < 0.6
    first = generator.random((3, 600)) < 0.6
    first[0] = generator.random(600) < 0.8
    found = statistics.compare(first, second)
    assert found.p_mcnemar < 0.005
    assert found.p > 0.1


@pytest.mark.parametrize(("seeds", "deviation"), [(1, 0.0), (3, 0.0), (3, 0.03), (5, 0.08)])
def test_intervals_cover_the_truth_as_often_as_they_say(seeds: int, deviation: float) -> None:
    """Images differ in difficulty and seeds in luck. Of 400 intervals at 95 %, the share has a standard error of 1.1 %;
    the interval may be too wide, but must not be too narrow by more than that."""
    generator = np.random.default_rng(seeds)
    # Clipping moves the expectation away from 0.10.
    spread = generator.normal(0, np.hypot(0.25, deviation), 10**6)
    truth = np.clip(0.75 + spread, 0, 1).mean() - np.clip(0.65 + spread, 0, 1).mean()
    covered = 0
    for _ in range(400):
        difficulty = generator.normal(0, 0.25, 300)
        luck = generator.normal(0, deviation, (2, seeds, 1))
        chances = np.clip(np.stack([0.75 + difficulty + luck[0], 0.65 + difficulty + luck[1]]), 0, 1)
        first, second = generator.random((2, seeds, 300)) < chances
        found = statistics.difference(first, second)
        covered += found.low <= truth <= found.high
    assert covered / 400 >= 0.93
