"""Devices, random seeds and exact arithmetic in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torchvision
from torch import distributed

from common.devices import precision, processes
from common.devices.device import Device
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.system.machine import available_cores


def prepare(spec: ExperimentSpec) -> Device:
    """Choose the device, seed PyTorch, and make its arithmetic exact (TF32 only if asked for) and repeatable.

    Call it before anything else. With several devices each has a process of its own, and the processes meet here.

    Args:
        spec: The experiment.

    Returns:
        The device, of all processes together. UserError is raised as by `find_device`.
    """
    device = find_device(spec)
    if spec.devices > 1:
        join(device)
    # cuBLAS is repeatable only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(spec.seed)
    torch.use_deterministic_algorithms(True)
    # Otherwise deterministic mode also writes NaN into all memory that is about to be written to.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    # Resizing on the device stays exact in TF32: its factors are whole numbers of at most 11 bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = spec.precision == "tf32"
    if device.type == "cuda":
        several = f"{spec.devices} x " if spec.devices > 1 else ""
        return Device("gpu", several + torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))
    several = f"{spec.devices} processes x " if spec.devices > 1 else ""
    return Device("cpu", f"{several}{torch.get_num_threads()} threads")


def join(device: torch.device) -> None:
    """Join the process group (NCCL on GPUs, gloo on a CPU), and take only this process's part of the cores."""
    world = processes.world()
    # By default every process takes a thread for each core. The minimum, as this may be called again.
    torch.set_num_threads(min(torch.get_num_threads(), max(1, available_cores() // world.local_size)))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def find_device(spec: ExperimentSpec) -> torch.device:
    """Return the torch device that `spec.device` means; with several, the one of this process.

    Args:
        spec: The experiment.

    Returns:
        The CPU, or a GPU: with several devices the one numbered by the process's rank within its machine.

    Raises:
        UserError: PyTorch sees no GPU or too few, or (from `processes.world_of`) the processes do not fit the devices.
    """
    world = processes.world_of(spec)
    available = torch.cuda.is_available()
    if spec.device == "gpu" and not available:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise UserError(f"device = 'gpu': PyTorch ({built}) sees no GPU; use --device cpu, or install a driver for it")
    if not available or spec.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.device_count() < world.local_size:
        raise UserError(
            f"devices = {spec.devices}: PyTorch sees {torch.cuda.device_count()} GPUs for the {world.local_size} "
            "processes of this machine; choose fewer --devices, or --device cpu"
        )
    return torch.device("cuda", world.local_rank) if spec.devices > 1 else torch.device("cuda")


def versions() -> dict[str, str]:
    """Return the versions of torch and torchvision."""
    return {"torch": torch.__version__, "torchvision": torchvision.__version__}


def peak_gpu_memory() -> int | None:
    """Return the most bytes that tensors occupied on the GPU at once, or None if this process has not used one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None


def matmul_benchmark(spec: ExperimentSpec, side: int) -> Callable[[], None]:
    """Return a function that multiplies two random square matrices on the device and waits for the product.

    Args:
        spec: The experiment; its precision is that of the matrices.
        side: Rows of each matrix.

    Returns:
        A function without arguments; on a GPU it ends with `torch.cuda.synchronize`.
    """
    device = find_device(spec)
    kind = torch.bfloat16 if spec.precision == "bf16" else parameter_type(spec)
    left, right = (torch.rand(side, side, device=device).to(kind) for _ in range(2))

    def product() -> None:
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return product


def parameter_type(spec: ExperimentSpec) -> torch.dtype:
    """Return the torch dtype of parameters, BatchNorm statistics, losses and logits: float32, or float64."""
    return getattr(torch, precision.parameter_type(spec))
