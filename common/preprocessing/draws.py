"""Random draws, each keyed by (seed, epoch, sample): neither the order nor the number of workers changes one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Streams of random numbers: one a purpose.
ORDER, AUGMENTATION = 3, 4


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the training samples in an epoch: a permutation of range(count)."""
    return np.argsort(generator(seed, ORDER, epoch).random(count), kind="stable").astype(np.int64)


def generator(*key: Any) -> np.random.Generator:
    # Of the generator only `random` is used: its stream is the same in every NumPy from 1.17 on.
    return np.random.default_rng([int(part) for part in key])
