"""Fine-tuning with MXNet and Gluon."""

# First, because it sets what MXNet reads while it is imported.
import backends.mxnet.runtime  # noqa: F401
from backends.mxnet.inputs import (
    from_shared,
    native_test_batches,
    native_train_batches,
    resident_batch,
    to_device,
)
from backends.mxnet.models import build_models, class_weight, head_of, head_shape
from backends.mxnet.runtime import make_product, peak_gpu_memory, prepare, versions
from backends.mxnet.training import Trainer, feature_extractor, gradients, logits, train_fine_tuning
from backends.mxnet.weights import load_arrays, to_arrays

__all__ = [
    "Trainer",
    "build_models",
    "class_weight",
    "feature_extractor",
    "from_shared",
    "gradients",
    "head_of",
    "head_shape",
    "load_arrays",
    "logits",
    "make_product",
    "native_test_batches",
    "native_train_batches",
    "peak_gpu_memory",
    "prepare",
    "resident_batch",
    "to_arrays",
    "to_device",
    "train_fine_tuning",
    "versions",
]
