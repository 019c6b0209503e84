"""Fine-tuning with PyTorch and torchvision."""

from __future__ import annotations

import sys
from typing import Any

from backends.torch.inputs import from_shared, native_test_batches, native_train_batches
from backends.torch.layers import extract_head, head_row, head_shape
from backends.torch.models import build_models
from backends.torch.resident import resident_batch, to_device
from backends.torch.runtime import matmul_benchmark, peak_gpu_memory, prepare, versions
from backends.torch.training import Trainer, feature_extractor, gradients, logits
from backends.torch.weights import load_arrays, read_file, to_arrays, write_file
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
    """Train `model` in place as `spec` says and evaluate it after each epoch.

    The epoch loop `common.training.loop.fit` is the same for every framework; this module gives it PyTorch's functions.

    Args:
        model: A network of `build_models`.
        spec: The experiment.
        data: Training, validation and test images.
        param_group: Whether head and stages learn at multiples of the learning rate; without, all learn at 1.
        watch: Is told how training goes; None prints a line for each epoch.

    Returns:
        The metrics of each epoch, and the predictions of the model that was kept. A loss that is not finite raises
        `common.training.loop.Diverged`.
    """
    plan = make_plan(spec, data, param_group)
    return loop.fit(Experiment(sys.modules[__name__], plan, data, watch or Watch()), model)
