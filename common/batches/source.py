"""The interface of every source of batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from common.data.folder import Sample
from common.preprocessing.transforms import Labels


class Batches(Protocol):
    """A source of an experiment's batches: its images by one of the pipelines, or their features."""

    def train(self, epoch: int, /) -> Iterator[tuple[Any, Any]]:
        """Yield the shuffled batches of an epoch, as the backend's Trainer takes them; the last may be smaller.

        Args:
            epoch: Counted from 1.

        Yields:
            Images (or features) and labels of a batch, in the framework's own objects.
        """

    def test(self, samples: Sequence[Sample], /) -> Iterator[tuple[Any, Labels]]:
        """Yield batches of samples in their order, prepared as for a test.

        Args:
            samples: The samples, each of which comes in exactly one batch.

        Yields:
            Images (or features) of a batch in the framework's own objects, and its labels, (N,) int64 of NumPy. Where
            several processes share the batch, the images are this one's part and the labels those of all.
        """
