"""Judge differences between runs by confidence intervals and tests, over test images and over seeds."""

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
"""With fewer seeds a difference is one of these trained networks, and hardly of the way they were trained."""


@dataclass(frozen=True)
class Difference:
    """A difference of two accuracies on the same test images, as fractions, with its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    p: float
    """Two-sided p-value for no difference."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of two ways to train, on the same test images with the same seeds."""

    difference: Difference
    better: int
    """Pairs of image and seed that only the first has right."""
    worse: int
    """Pairs of image and seed that only the second has right."""
    p_mcnemar: float
    """p-value of McNemar's exact test."""

    @property
    def p(self) -> float:
        """The larger p-value of both tests: a difference counts only if both tests find it (Berger 1982)."""
        return max(self.p_mcnemar, self.difference.p)


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of one run's accuracy (Wilson 1927), for other test images, not other seeds.

    With k of n images correct and z = 1.96 the interval is

        (k + z^2 / 2) / (n + z^2) -+ z / (n + z^2) * sqrt(k * (n - k) / n + z^2 / 4)

    >>> [round(end, 3) for end in wilson(93, 100)]
    [0.863, 0.966]
    """
    interval = stats.binomtest(correct, images).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation (divisor n - 1), which is None for a single value.

    >>> mean_and_deviation([1, 2, 3]), mean_and_deviation([0.5])
    ((2.0, 1.0), (0.5, None))
    """
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Estimate how much more often `first` is right than `second`, with a 95 % confidence interval.

    Seeds and images are crossed random effects. Let d = first - second, (seeds, images), m its mean, and

        a = var(d's mean of each image) / images
        b = var(d's mean of each seed) / seeds
        r = var(d less its means of image and seed, plus m) / (seeds * images)

    The variance of m is a + b - r, since r is in both a and b; it is taken as at least a and at least b. The degrees
    of freedom of Student's t are (a + b - r)^2 / (a^2 / (images - 1) + b^2 / (seeds - 1)), after Satterthwaite (1946).
    So the interval holds for other test images and, from two seeds on, for other seeds. A single seed says nothing of
    others: its interval is that of the test images alone.

    Args:
        first: Whether the one is right, (seeds, images).
        second: Whether the other is right, for the same seeds and images in the same order.

    Returns:
        The mean difference m as a fraction, its interval and its p-value.
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
    """Compare two ways to train by McNemar's test and by `difference`.

    McNemar's test (McNemar 1947, exact) counts the images that only the one network has right and those that only the
    other has right: without a difference, each such image is on either side with probability 1/2. Dietterich (1998)
    recommends it for networks that are trained once. The counts of all seeds are pooled, since a single seed has few
    such images. But an image that is hard for one seed is hard for others too, and one way to train may be lucky with
    a seed; so `difference`, which takes account of both, has to agree.

    Args:
        first: Whether the one is right, (seeds, images).
        second: Whether the other is right, for the same seeds and images in the same order.

    Returns:
        The comparison, with the p-values of both tests.
    """
    better, worse = int((first & ~second).sum()), int((~first & second).sum())
    p = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return Comparison(difference(first, second), better, worse, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for multiple tests (Holm 1979), in the order given.

    Of m p-values p[1] <= ... <= p[m], the k-th becomes max over j <= k of min(1, (m - j + 1) * p[j]).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
