"""Device, random seeds and exact arithmetic in MXNet. Importing this module is what imports MXNet."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Callable

from common.devices import precision
from common.devices.device import Device
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.system.machine import available_cores

# Read once, while MXNet is imported or first used; what the user has set stands.
SETTINGS = {
    # MXNet takes half of the cores unless told.
    "OMP_NUM_THREADS": str(available_cores()),
    # Threads that spin while they wait cost most of the speed when anything else wants the cores.
    "OMP_WAIT_POLICY": "passive",
    "MXNET_ENFORCE_DETERMINISM": "1",
    "MXNET_CUDNN_AUTOTUNE_DEFAULT": "0",
    "NVIDIA_TF32_OVERRIDE": "0",
}
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

with warnings.catch_warnings():
    # MXNet 1.9.1 uses names that NumPy 1.23 announces to remove.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    import mxnet as mx

# Arrays and operators with NumPy's shapes, types and names instead of MXNet's older ones.
mx.npx.set_np()


def prepare(spec: ExperimentSpec) -> Device:
    """See `common.contract.backend.Backend.prepare`: exactness and repeatability are in SETTINGS."""
    device, *others = find_devices(spec)
    mx.random.seed(spec.seed)
    if device.device_type == "gpu":
        return Device("gpu", (f"{spec.devices} x " if others else "") + gpu_name())
    several = f", {spec.devices} virtual devices" if others else ""
    return Device("cpu", f"{os.environ['OMP_NUM_THREADS']} threads{several}")


def find_device(spec: ExperimentSpec) -> mx.Context:
    """The MXNet context that `spec.device` means; raises UserError for `gpu` where MXNet sees none."""
    available = count_gpus() > 0
    if spec.device == "gpu" and not available:
        if mx.runtime.Features().is_enabled("CUDA"):
            raise UserError("device = 'gpu': MXNet (built for CUDA) sees no GPU; use --device cpu, or install a driver")
        raise UserError(
            "device = 'gpu': this MXNet was built without CUDA; use --device cpu, or build the environment anew with "
            "nox -s environment-mxnet -- --cuda"
        )
    return mx.gpu() if available and spec.device != "cpu" else mx.cpu()


def find_devices(spec: ExperimentSpec) -> list[mx.Context]:
    """The MXNet contexts that share a batch; MXNet has as many of the CPU as one asks for. Raises UserError where there
    are fewer GPUs."""
    kind = find_device(spec).device_type
    if kind == "gpu" and count_gpus() < spec.devices:
        gpus = count_gpus()
        raise UserError(
            f"devices = {spec.devices}: MXNet sees {gpus} GPU{'s' if gpus > 1 else ''}; choose --devices {gpus}, or "
            "--device cpu for virtual devices"
        )
    return [mx.Context(kind, number) for number in range(spec.devices)]


def count_gpus() -> int:
    """How many GPUs MXNet can use; it raises where the driver is missing or too old."""
    try:
        return mx.context.num_gpus()
    except mx.MXNetError:
        return 0


def gpu_name() -> str:
    """The product name of the first GPU, which MXNet does not tell."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "GPU 0"


def versions() -> dict[str, str]:
    """See `common.contract.backend.Backend.versions`."""
    return {"mxnet": mx.__version__}


def peak_gpu_memory() -> int | None:
    """See `common.contract.backend.Backend.peak_gpu_memory`: MXNet counts what is free, not what was held at most."""
    return None


def matmul_benchmark(spec: ExperimentSpec, side: int) -> Callable[[], None]:
    """See `common.contract.backend.Backend.matmul_benchmark`."""
    place = {"ctx": find_device(spec), "dtype": precision.parameter_type(spec)}
    left, right = (mx.np.ones((side, side), **place) for _ in range(2))

    def product() -> None:
        # A dense layer's product is oneDNN's, like the convolutions; `dot` is OpenBLAS', several times slower.
        mx.npx.fully_connected(left, right, num_hidden=side, no_bias=True).wait_to_read()

    return product
