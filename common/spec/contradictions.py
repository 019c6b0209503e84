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
    if spec.backend == "mxnet" and spec.precision == "bf16":
        raise UserError("precision = 'bf16': MXNet trains in float32 only; choose --precision fp32, or another backend")
    check_devices(spec)
    if spec.image_size and spec.resize_size and spec.resize_size < spec.image_size:
        raise UserError(f"resize_size = {spec.resize_size}: expected at least image_size = {spec.image_size}")
    if spec.strategy == "warm-up" and spec.epochs and spec.warm_up_epochs >= spec.epochs:
        raise UserError(f"warm_up_epochs = {spec.warm_up_epochs}: expected fewer than epochs = {spec.epochs}")
    for name, wanted in (("early_stopping", spec.early_stopping is not None), ("keep", spec.keep == "best")):
        if wanted and not spec.validation:
            raise UserError(
                f"{name} = {getattr(spec, name)}: needs validation images to choose by; add --validation 0.2"
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
        raise UserError("data = '': expected demo, hotdog, or the path of a folder or .zip")
    if spec.weights == "":
        raise UserError(
            "weights = '': expected auto, distilled, tv_in1k, imagenet, none or the path of a .safetensors file"
        )
    if spec.weights == "none" and spec.strategy != "scratch":
        raise UserError(
            f"weights = 'none' leaves the strategy {spec.strategy!r} nothing to start from; "
            "choose --strategy scratch or other --weights"
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
