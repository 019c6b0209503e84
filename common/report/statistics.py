"""What a difference between runs is worth: intervals and tests, over test images and over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
"""A difference is beyond noise if its adjusted p-value is below this."""

ENOUGH_SEEDS = 3
"""Fewer seeds tell of these trained networks, but hardly of the way they were trained."""


@dataclass(frozen=True)
class Difference:
    """A difference of two accuracies on the same test images, as fractions, with its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two ways to train, held against each other on the same test images with the same seeds."""

    difference: Difference
    better: int
    """Pairs of image and seed that only the first has right."""
    worse: int
    """Pairs of image and seed that only the second has right."""
    p_mcnemar: float

    @property
    def p(self) -> float:
        """Of both tests the larger p-value: only a difference that both reject is one (Berger 1982)."""
        return max(self.p_mcnemar, self.difference.p)


def wilson(correct: int, images: int) -> tuple[float, float]:
    """The 95 % interval of one run's accuracy (Wilson 1927): of its test images, not of its seed."""
    interval = stats.binomtest(correct, images).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the standard deviation over n - 1; None for a single value, which has none."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """How much more often `first` is right than `second`: both (seeds, images), whether right, in the same order.

    Seeds and images are crossed random effects: with a and b the variances of the means over images and over seeds,
    and r that of what is left, the mean's variance is a + b - r, since r is in both; Satterthwaite (1946) gives
    the degrees of freedom of Student's t. So the interval holds for other test images and, from two seeds on, for
    other seeds. A single seed says nothing of others: its interval is that of the test images alone.
    """
    apart = first.astype(np.float64) - second.astype(np.float64)
    seeds, images = apart.shape
    mean = float(apart.mean())
    of_images, of_seeds = apart.mean(axis=0), apart.mean(axis=1)
    a = float(of_images.var(ddof=1)) / images if images > 1 else 0.0
    b = float(of_seeds.var(ddof=1)) / seeds if seeds > 1 else 0.0
    rest = apart - of_images - of_seeds[:, None] + mean
    freedom_of_rest = max(1, (seeds - 1) * (images - 1))
    r = float((rest**2).sum()) / freedom_of_rest / (seeds * images) if seeds > 1 else 0.0
    variance = max(a + b - r, a, b)
    if variance == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    spent = (a**2 / (images - 1) if images > 1 else 0.0) + (b**2 / (seeds - 1) if seeds > 1 else 0.0)
    freedom = variance**2 / spent
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    p = 2 * float(stats.t.sf(abs(mean) / math.sqrt(variance), freedom))
    return Difference(mean, mean - half, mean + half, p)


def compare(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Comparison:
    """Hold two ways to train against each other: both (seeds, images), whether right, in the same order.

    McNemar's test (McNemar 1947, exact) asks on which side the images lie that only one of two networks has right;
    Dietterich (1998) recommends it for networks that are trained once. The counts of all seeds are pooled, since a
    single seed has few such images. But an image that is hard for one seed is hard for others too, and one way to
    train may be lucky with a seed: so `difference`, which knows both, has to agree.
    """
    better, worse = int((first & ~second).sum()), int((~first & second).sum())
    p = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return Comparison(difference(first, second), better, worse, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for there being several (Holm 1979), in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
