"""Evaluate the source network's own classes on the data, without training."""

from __future__ import annotations

from typing import Any

from common.batches import resident
from common.contract.backend import Backend
from common.contract.results import History, Predictions
from common.contract.watch import Watch
from common.data.folder import ImageData
from common.method import counting
from common.network.source_classes import group_logits, rows_for
from common.preprocessing import transforms
from common.spec.experiment import ExperimentSpec
from common.training import evaluation


def evaluate(backend: Backend, model: Any, spec: ExperimentSpec, data: ImageData, watch: Watch) -> History:
    """What the source network `model` says of the data without training: a history without epochs."""
    rows, transform = rows_for(spec, data.classes), transforms.transform_for(spec)
    watch.on_start(counting.steps(spec, data))
    images = resident.image_source(backend, spec, transform, data)
    said = evaluation.evaluate(backend, model, spec, transform, data, watch, images)
    validation, test = (p and Predictions(group_logits(p.logits, rows), p.labels) for p in said)
    return History(test=test, validation=validation)
