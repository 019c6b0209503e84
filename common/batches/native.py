"""Batches by the framework's own input pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from common.contract.experiment import Experiment
from common.data.folder import Sample
from common.preprocessing.transforms import Labels


class NativeBatches:
    """Batches of the native pipeline: the framework reads, crops and shuffles with its own tools."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    def train(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Yield the shuffled batches of an epoch from the backend's `native_train_batches`, as they are."""
        backend, plan = self.experiment.backend, self.experiment.plan
        yield from backend.native_train_batches(plan.spec, plan.transform, self.experiment.data.train, epoch)

    def test(self, samples: Sequence[Sample]) -> Iterator[tuple[Any, Labels]]:
        """Yield batches in order from the backend's `native_test_batches`, with the labels as int64 of NumPy."""
        backend, plan = self.experiment.backend, self.experiment.plan
        for images, labels in backend.native_test_batches(plan.spec, plan.transform, samples):
            yield images, np.asarray(labels, np.int64)
