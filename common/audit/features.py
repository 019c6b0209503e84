"""Compute the features of pictures with the source network of a backend, once for all checks of the same pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.batches.features import FeatureBatches, cache_for
from common.batches.shared import SharedBatches
from common.contract.backend import Backend
from common.contract.experiment import Experiment
from common.contract.watch import Watch
from common.data.folder import ImageData, Sample
from common.method.plan import make_plan
from common.spec.experiment import ExperimentSpec


def compute(backend: Backend, spec: ExperimentSpec, samples: Sequence[Sample], watch: Watch) -> NDArray[np.float32]:
    """Return the features of samples, (N, features) float32; they are kept for later checks, as those of a run are.

    Args:
        backend: The backend.
        spec: The experiment, as `spec_for` makes it.
        samples: The samples; their labels play no part.
        watch: Is told how far the work is.
    """
    data = ImageData("", Path(), (), tuple(samples), (), ())
    backend.prepare(spec)
    experiment = Experiment(backend, make_plan(spec, data), data, watch)
    watch.on_start(math.ceil(len(samples) / spec.batch_size))
    source = FeatureBatches(
        experiment, backend.build_models(spec).fine_tune, SharedBatches(experiment), cache_for(spec)
    )
    source.compute(samples)
    return np.stack([source.vectors[sample] for sample in samples])


def spec_for(backend: str, weights: str, device: str, workers: int) -> ExperimentSpec:
    """Return the experiment whose features are computed: the whole picture's centre, at the size of the weights.

    A UserError passes through for a backend or device that does not exist.

    Args:
        backend: The name of the backend.
        weights: Source weights, as for `scripts.run`.
        device: `auto`, `cpu` or `gpu`.
        workers: Threads that prepare pictures.
    """
    return ExperimentSpec.from_dict(
        {
            "backend": backend, "weights": weights, "device": device, "workers": workers, "batch_size": 64,
            "strategy": "feature-extraction", "train_crop": "none", "flip": False,
        }
    )  # fmt: skip
