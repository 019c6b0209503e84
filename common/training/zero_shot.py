"""Evaluate the source network's own classes on the data, without training."""

from __future__ import annotations

from typing import Any

from common.batches.pipelines import image_batches
from common.contract.experiment import Experiment
from common.contract.results import History, Predictions
from common.network.source_classes import group_logits, rows_for
from common.training import evaluation


def evaluate(experiment: Experiment, model: Any) -> History:
    """Return the predictions of the source network `model` for the data, without training: a history of no epochs."""
    rows = rows_for(experiment.spec, experiment.data.classes)
    experiment.watch.on_start(experiment.plan.batches)
    said = evaluation.evaluate(experiment, model, image_batches(experiment))
    validation, test = (p and Predictions(group_logits(p.logits, rows), p.labels) for p in said)
    return History(test=test, validation=validation)
