"""Predictions of a model, batch by batch, in the order of the samples."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.batches.source import BatchSource
from common.contract.backend import Backend
from common.contract.results import Predictions
from common.contract.watch import Watch
from common.data.folder import ImageData, Sample
from common.method.counting import counted_images
from common.preprocessing import transforms
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError


def tested_samples(spec: ExperimentSpec, data: ImageData) -> Sequence[Sample]:
    """The test samples that count."""
    return data.test[: counted_images(spec, len(data.test))]


def evaluate(
    backend: Backend,
    model: Any,
    spec: ExperimentSpec,
    transform: transforms.Transform,
    data: ImageData,
    watch: Watch,
    source: BatchSource,
) -> tuple[Predictions | None, Predictions]:
    """The model's predictions of the validation images, if there are any, and of the test images."""
    validation = None
    if data.validation:
        validation = predict(backend, model, spec, transform, data.validation, watch, source)
    return validation, predict(backend, model, spec, transform, tested_samples(spec, data), watch, source)


def predict(
    backend: Backend,
    model: Any,
    spec: ExperimentSpec,
    transform: transforms.Transform,
    samples: Sequence[Sample],
    watch: Watch,
    source: BatchSource,
) -> Predictions:
    """The model's logits for every sample, prepared as for a test, in order."""
    start = time.perf_counter()
    logits: list[NDArray[Any]] = []
    labels: list[NDArray[np.int64]] = []
    seen = 0
    for images, batch_labels in test_batches(backend, spec, transform, samples, source):
        # Of a batch that several processes share there may be more rows than images; see `common.devices.processes`.
        logits.append(backend.logits(model, images)[: len(batch_labels)])
        labels.append(np.asarray(batch_labels, np.int64))
        seen += len(labels[-1])
        watch.on_progress(1, f"testing, {seen / (time.perf_counter() - start):.1f} images/s")
    result = Predictions(np.concatenate(logits), np.concatenate(labels))
    expected = [sample.label for sample in samples]
    if result.labels.tolist() != expected:
        raise RunError(f"the input pipeline gave {seen} of {len(expected)} test images, or gave them out of order")
    return result


def test_batches(
    backend: Backend,
    spec: ExperimentSpec,
    transform: transforms.Transform,
    samples: Sequence[Sample],
    source: BatchSource,
) -> Iterator[tuple[Any, NDArray[np.int64]]]:
    """The samples in order, prepared as for a test: images as the backend takes them, labels as NumPy."""
    if spec.pipeline == "native":
        for images, labels in backend.native_test_batches(spec, transform, samples):
            yield images, np.asarray(labels, np.int64)
        return
    for images, labels in source.test_batches(spec, transform, samples):
        yield source.on_device(backend, images, labels)[0], labels
