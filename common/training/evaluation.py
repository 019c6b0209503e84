"""Compute the predictions of a model, batch by batch, in the order of the samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.batches.source import Batches
from common.contract.experiment import Experiment
from common.contract.results import Predictions
from common.data.folder import Sample
from common.system.errors import RunError


def evaluate(experiment: Experiment, model: Any, batches: Batches) -> tuple[Predictions | None, Predictions]:
    """Return the predictions for the validation images (None without any) and for the test images that count."""
    data = experiment.data
    validation = predict(experiment, model, data.validation, batches) if data.validation else None
    return validation, predict(experiment, model, data.test[: experiment.plan.tested_images], batches)


def predict(experiment: Experiment, model: Any, samples: Sequence[Sample], batches: Batches) -> Predictions:
    """Compute the model's logits for every sample, prepared as for a test.

    Args:
        experiment: The experiment.
        model: The model, or its head where the batches are features.
        samples: The samples.
        batches: The source of the batches.

    Returns:
        Logits and labels in the order of the samples.

    Raises:
        RunError: The input pipeline lost a sample, or gave them out of order.
    """
    start = time.perf_counter()
    logits: list[NDArray[Any]] = []
    labels: list[NDArray[np.int64]] = []
    seen = 0
    for images, batch_labels in batches.test(samples):
        # A batch that several processes share may have been padded to more rows (`common.devices.processes`).
        logits.append(experiment.backend.logits(model, images)[: len(batch_labels)])
        labels.append(batch_labels)
        seen += len(batch_labels)
        experiment.watch.on_progress(1, f"testing, {seen / (time.perf_counter() - start):.1f} images/s")
    result = Predictions(np.concatenate(logits), np.concatenate(labels))
    expected = [sample.label for sample in samples]
    if result.labels.tolist() != expected:
        raise RunError(f"the input pipeline gave {seen} of {len(expected)} test images, or gave them out of order")
    return result
