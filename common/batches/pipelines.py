"""Choose the input pipeline that a spec names."""

from __future__ import annotations

from collections.abc import Callable

from common.batches.native import NativeBatches
from common.batches.resident import ResidentBatches
from common.batches.shared import SharedBatches
from common.batches.source import Batches
from common.contract.experiment import Experiment

PIPELINES: dict[str, Callable[[Experiment], Batches]] = {
    "shared": SharedBatches,
    "native": NativeBatches,
    "resident": ResidentBatches,
}


def image_batches(experiment: Experiment) -> Batches:
    """Return the batches of an experiment's images; `resident` copies them to the device first."""
    return PIPELINES[experiment.spec.pipeline](experiment)
