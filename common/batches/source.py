"""What every source of batches provides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from common.data.folder import Sample
from common.preprocessing.transforms import Labels


class Batches(Protocol):
    """Where the batches of an experiment come from: its images by one of the pipelines, or their features."""

    def train(self, epoch: int, /) -> Iterator[tuple[Any, Any]]:
        """Yield the shuffled batches of an epoch, as the backend's Trainer takes them; the last may be smaller."""

    def test(self, samples: Sequence[Sample], /) -> Iterator[tuple[Any, Labels]]:
        """Yield batches of samples in their order, prepared as for a test: images for the backend, labels as NumPy."""
