"""Find NVIDIA's driver, and say where a framework does not use the GPU behind it.

Only the standard library is imported here: environments are built by a bare interpreter.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.devices.device import Device
    from common.spec.experiment import ExperimentSpec

KERNEL_MODULE = Path("/proc/driver/nvidia/version")
LIBRARY = "libcuda.so.1"
TOOL = "nvidia-smi"


def find_driver() -> str | None:
    """Return where NVIDIA's driver was found: the file of its kernel module, its tool or its library.

    Returns:
        The path or name of the first that is there, or None on a machine without the driver.
    """
    if KERNEL_MODULE.exists():
        return str(KERNEL_MODULE)
    tool = shutil.which(TOOL)
    if tool is not None:
        return tool
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    return LIBRARY


@functools.cache
def compute_capability() -> tuple[int, int] | None:
    """Return NVIDIA's number of the first GPU's generation, as nvidia-smi tells it; None where it does not."""
    command = [TOOL, "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        major, minor = told.strip().split(".")
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def is_hidden() -> bool:
    """Return whether CUDA_VISIBLE_DEVICES hides all GPUs from this process."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")


def unused_gpu(spec: ExperimentSpec, device: Device) -> str | None:
    """Say that an experiment for which any device would do runs on the CPU of a machine with an NVIDIA GPU.

    Args:
        spec: The experiment.
        device: The device that the framework took.

    Returns:
        A line that names the command which mends it; None where there is nothing to say.
    """
    if spec.device != "auto" or device.kind == "gpu" or is_hidden():
        return None
    found = find_driver()
    if found is None:
        return None
    remedy = f"`python3 noxfile.py -s environment-{spec.backend} -- --cuda` builds its environment for the GPU"
    if spec.backend == "torch":
        remedy = "it is built for CUDA, so `nvidia-smi` shows what is wrong with the driver"
    if spec.backend == "mxnet":
        remedy += ", if its compute capability is below 9.0"
    return (
        f"device = 'auto' is the CPU: {spec.backend} sees no GPU, though NVIDIA's driver is here ({found}); {remedy}. "
        "--device cpu says that the CPU is meant."
    )
