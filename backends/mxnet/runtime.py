"""Devices, random seeds and exact arithmetic in MXNet.

Importing this module imports MXNet, after setting the environment variables that MXNet reads once (SETTINGS).
"""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Callable

from common.devices import cuda_libraries, driver, precision
from common.devices.device import Device
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.system.machine import available_cores

# MXNet reads these once, while it is imported or first used. Variables that the user has set stay as they are.
SETTINGS = {
    # MXNet takes half of the cores unless told.
    "OMP_NUM_THREADS": str(available_cores()),
    # Passive, because threads that spin while they wait cost most of the speed when anything else wants the cores.
    "OMP_WAIT_POLICY": "passive",
    "MXNET_ENFORCE_DETERMINISM": "1",
    "MXNET_CUDNN_AUTOTUNE_DEFAULT": "0",
    "NVIDIA_TF32_OVERRIDE": "0",
}
# The package has machine code for compute capability 5.0, 6.0, 7.0, 8.0 and 8.6, which later GPUs of the same first
# number run too, and no code that a driver could compile for others.
FIRST_GPUS, BEHIND_GPUS = (5, 0), (9, 0)
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

with warnings.catch_warnings():
    # MXNet 1.9.1 uses names that NumPy 1.23 warns will be removed.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    # The CUDA variant has its libraries in packages beside it, where the loader does not look.
    cuda_libraries.preload(cuda_libraries.installed())
    try:
        import mxnet as mx
    except OSError as error:
        raise UserError(
            f"MXNet cannot be loaded: {error}. libcuda.so.1 is part of NVIDIA's driver; without a GPU build the "
            "environment anew with python3 noxfile.py -s environment-mxnet -- --no-cuda"
        ) from error

# Arrays and operators with NumPy's shapes, types and names instead of MXNet's older ones.
mx.npx.set_np()


def prepare(spec: ExperimentSpec) -> Device:
    """Choose the devices and seed MXNet's generator.

    Exactness and repeatability come from the environment variables in SETTINGS, which are set before MXNet is imported.
    A missing device ends in a UserError (`find_devices`).

    Args:
        spec: The experiment.

    Returns:
        The kind of device and its description.
    """
    device, *others = find_devices(spec)
    mx.random.seed(spec.seed)
    if device.device_type == "gpu":
        return Device("gpu", (f"{spec.devices} x " if others else "") + gpu_name())
    several = f", {spec.devices} virtual devices" if others else ""
    return Device("cpu", f"{os.environ['OMP_NUM_THREADS']} threads{several}")


def find_device(spec: ExperimentSpec) -> mx.Context:
    """Return the first MXNet context that `spec.device` means: the GPU, if MXNet sees one, unless it is `cpu`.

    Args:
        spec: The experiment.

    Returns:
        The context.

    Raises:
        UserError: `spec.device` is `gpu` and MXNet sees none.
    """
    available = count_gpus() > 0
    if spec.device == "gpu" and not available:
        found = driver.compute_capability()
        if found is not None and not FIRST_GPUS <= found < BEHIND_GPUS:
            raise UserError(
                f"device = 'gpu': MXNet {mx.__version__} has code for GPUs of compute capability 5.0 to 8.9, and this "
                f"one has {found[0]}.{found[1]}; use --device cpu"
            )
        if mx.runtime.Features().is_enabled("CUDA"):
            raise UserError("device = 'gpu': MXNet (built for CUDA) sees no GPU; use --device cpu, or install a driver")
        raise UserError(
            "device = 'gpu': this MXNet was built without CUDA; use --device cpu, or build the environment anew with "
            "nox -s environment-mxnet -- --cuda"
        )
    return mx.gpu() if available and spec.device != "cpu" else mx.cpu()


def find_devices(spec: ExperimentSpec) -> list[mx.Context]:
    """Return the MXNet contexts that share a batch; of the CPU, MXNet makes as many as one asks for.

    Args:
        spec: The experiment.

    Returns:
        `spec.devices` contexts of one kind.

    Raises:
        UserError: MXNet sees fewer GPUs.
    """
    kind = find_device(spec).device_type
    if kind == "gpu" and count_gpus() < spec.devices:
        gpus = count_gpus()
        raise UserError(
            f"devices = {spec.devices}: MXNet sees {gpus} GPU{'s' if gpus > 1 else ''}; choose --devices {gpus}, or "
            "--device cpu for virtual devices"
        )
    return [mx.Context(kind, number) for number in range(spec.devices)]


def count_gpus() -> int:
    """Return the number of GPUs that MXNet can use.

    It is 0 where MXNet raises because the driver is missing or too old, and where it has no code for the first GPU.
    """
    try:
        seen = mx.context.num_gpus()
    except mx.MXNetError:
        return 0
    found = driver.compute_capability() if seen else None
    return 0 if found is not None and not FIRST_GPUS <= found < BEHIND_GPUS else seen


def gpu_name() -> str:
    """Return the product name of the first GPU, which nvidia-smi knows and MXNet does not tell."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "GPU 0"


def versions() -> dict[str, str]:
    """Return the version of MXNet."""
    return {"mxnet": mx.__version__}


def peak_gpu_memory() -> int | None:
    """Return None: MXNet counts the memory that is free, not the most that was held."""
    return None


def matmul_benchmark(spec: ExperimentSpec, side: int) -> Callable[[], None]:
    """Return a function that multiplies two square matrices of `side` rows and waits for the product.

    MXNet queues operations and computes them later, which is why it waits with `wait_to_read`.
    """
    place = {"ctx": find_device(spec), "dtype": precision.parameter_type(spec)}
    left, right = (mx.np.ones((side, side), **place) for _ in range(2))

    def product() -> None:
        # A dense layer's product uses oneDNN, as convolutions do; `dot` uses OpenBLAS, which is several times slower.
        mx.npx.fully_connected(left, right, num_hidden=side, no_bias=True).wait_to_read()

    return product
