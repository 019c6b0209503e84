"""What every source of batches provides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from common.contract.backend import Backend
from common.data.folder import Sample
from common.preprocessing.transforms import Labels, Transform
from common.spec.experiment import ExperimentSpec


class BatchSource(Protocol):
    """Where an epoch's batches come from: images of the shared or the resident pipeline, or features of either."""

    def train_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int, /
    ) -> Iterator[tuple[Any, Labels]]:
        """Shuffled batches, of images or of what `on_device` makes them from."""

    def test_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], /
    ) -> Iterator[tuple[Any, Labels]]:
        """Batches in the order of the samples."""

    def on_device(self, backend: Backend, images: Any, labels: Labels, /) -> tuple[Any, Any]:
        """A batch as the backend takes it."""
