"""The rules between the fields of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.spec.names import MODELS_BY_BACKEND
from common.system.errors import UserError

if TYPE_CHECKING:
    from common.spec.experiment import ExperimentSpec


def check_contradictions(spec: ExperimentSpec) -> None:
    """Check the fields against each other.

    Raises:
        UserError: Two fields contradict each other, or a text is empty.
    """
    if spec.model not in MODELS_BY_BACKEND[spec.backend]:
        offered = ", ".join(MODELS_BY_BACKEND[spec.backend])
        raise UserError(f"model = {spec.model!r}: the {spec.backend} backend offers {offered}")
    if spec.backend == "mxnet" and spec.precision in ("bf16", "tf32"):
        raise UserError(
            f"precision = {spec.precision!r}: MXNet trains in float32 only; choose --precision fp32, or another backend"
        )
    if spec.precision == "tf32" and spec.device == "cpu":
        raise UserError("precision = 'tf32': NVIDIA's GPUs alone have it; choose --precision fp32, or --device gpu")
    check_devices(spec)
    if spec.image_size and spec.resize_size and spec.resize_size < spec.image_size:
        raise UserError(f"resize_size = {spec.resize_size}: expected at least image_size = {spec.image_size}")
    check_letterbox(spec)
    if spec.strategy == "warm-up" and spec.epochs and spec.warm_up_epochs >= spec.epochs:
        raise UserError(f"warm_up_epochs = {spec.warm_up_epochs}: expected fewer than epochs = {spec.epochs}")
    for name, wanted in (("early_stopping", spec.early_stopping is not None), ("keep", spec.keep == "best")):
        if wanted and not spec.validation:
            raise UserError(
                f"{name} = {getattr(spec, name)}: needs validation images to choose by; add --validation 0.2 (a val "
                "folder beside train and test is then used instead)"
            )
    if spec.schedule == "one-cycle" and spec.schedule_warm_up_steps:
        raise UserError("schedule_warm_up_steps: the schedule one-cycle warms up by itself; leave the option away")
    if spec.head_init_classes and spec.head_init != "source-class":
        raise UserError("head_init_classes: needs --head-init source-class")
    if (spec.data_url is None) != (spec.data_sha1 is None):
        given, absent = ("data_url", "data_sha1") if spec.data_sha1 is None else ("data_sha1", "data_url")
        raise UserError(f"{given} needs {absent} too: a download is only used when its SHA-1 is the one expected")
    if spec.data_url is not None and spec.data != "hotdog":
        raise UserError(f"data_url: only the data set hotdog is downloaded, but data = {spec.data!r}")
    if spec.data == "":
        raise UserError("data = '': expected demo, hotdog, or the path of a folder, .zip or table")
    if spec.weights == "":
        raise UserError(
            "weights = '': expected auto, distilled, tv_in1k, imagenet, none or the path of a .safetensors file"
        )
    if spec.weights == "none" and spec.strategy != "scratch":
        raise UserError(
            f"weights = 'none' leaves the strategy {spec.strategy!r} nothing to start from; "
            "choose --strategy scratch or other --weights"
        )


def check_letterbox(spec: ExperimentSpec) -> None:
    """Raise UserError where a field contradicts the resizing of whole images into the square."""
    if spec.test_resize != "letterbox":
        return
    if spec.train_crop == "resize_random_crop":
        raise UserError(
            "train_crop = 'resize_random_crop': test_resize = letterbox resizes the whole image into the square and "
            "leaves nothing to crop; choose --train-crop random_resized_crop or none, or --test-resize short_side"
        )
    if spec.resize_size not in (None, spec.image_size):
        raise UserError(
            f"resize_size = {spec.resize_size}: test_resize = letterbox resizes the long side to image_size; leave the "
            "option away, or choose --test-resize short_side"
        )


def check_devices(spec: ExperimentSpec) -> None:
    """Raise UserError where several devices cannot share the batches."""
    if spec.batch_size % spec.devices:
        raise UserError(
            f"devices = {spec.devices}: cannot share a batch of {spec.batch_size} evenly; choose a --batch-size that "
            "is a multiple"
        )
    if spec.devices > 1 and spec.pipeline != "shared":
        raise UserError(f"devices: the {spec.pipeline} pipeline feeds one device; choose --pipeline shared")
