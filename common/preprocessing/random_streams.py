"""Random draws keyed by seed, purpose, epoch and sample, so that no order or number of workers changes any."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Streams of random numbers, one for each purpose.
ORDER, AUGMENTATION = 3, 4


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the training samples in an epoch: a permutation of range(count), (count,) int64."""
    return np.argsort(generator(seed, ORDER, epoch).random(count), kind="stable").astype(np.int64)


def generator(*key: Any) -> np.random.Generator:
    """Return the generator of the random stream that the whole numbers of `key` name."""
    # Only its method `random` is used, whose stream is the same in every NumPy from 1.17 on.
    return np.random.default_rng([int(part) for part in key])
