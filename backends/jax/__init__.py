"""Fine-tuning with JAX, Flax, Optax, flaxmodels and Grain.

The package provides the names that `common.contract.backend.Backend` asks of every backend.
"""

from __future__ import annotations

import sys
from typing import Any

from backends.jax.inputs import from_shared, native_test_batches, native_train_batches
from backends.jax.layers import extract_head, head_row, head_shape
from backends.jax.models import build_models
from backends.jax.resident import resident_batch, to_device
from backends.jax.runtime import matmul_benchmark, peak_gpu_memory, prepare, versions
from backends.jax.training import Trainer, feature_extractor, gradients, logits
from backends.jax.weights import load_arrays, read_file, to_arrays, write_file
from common.contract.experiment import Experiment
from common.contract.results import History
from common.contract.watch import Watch
from common.data.folder import ImageData
from common.method.plan import make_plan
from common.spec.experiment import ExperimentSpec
from common.training import loop

__all__ = [
    "Trainer",
    "build_models",
    "head_row",
    "feature_extractor",
    "from_shared",
    "gradients",
    "extract_head",
    "head_shape",
    "load_arrays",
    "logits",
    "matmul_benchmark",
    "native_test_batches",
    "native_train_batches",
    "peak_gpu_memory",
    "prepare",
    "read_file",
    "resident_batch",
    "to_arrays",
    "to_device",
    "train_fine_tuning",
    "versions",
    "write_file",
]


def train_fine_tuning(
    model: Any, spec: ExperimentSpec, data: ImageData, param_group: bool = True, watch: Watch | None = None
) -> History:
    """Train `model` in place as `spec` says, evaluate it after each epoch and return the history.

    The loop is that of all backends, `common.training.loop.fit`, which raises Diverged when the loss is no longer
    finite; this package gives it the steps, logits and batches.

    Args:
        model: A `backends.jax.weights.Model`; training replaces its trees of arrays.
        spec: The experiment.
        data: The images to train on and to evaluate with.
        param_group: Whether head and stages learn at multiples of the learning rate; otherwise all learn at 1 times it.
        watch: The listener that hears of notes, progress and epochs; by default one that prints a line an epoch.

    Returns:
        The metrics of every finished epoch and the predictions of the model that was kept.
    """
    plan = make_plan(spec, data, param_group)
    return loop.fit(Experiment(sys.modules[__name__], plan, data, watch or Watch()), model)
