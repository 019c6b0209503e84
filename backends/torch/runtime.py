"""Device, random seeds and exact arithmetic in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torchvision

from backends.contract import Device
from common import precision
from common.errors import UserError
from common.spec import ExperimentSpec


def prepare(spec: ExperimentSpec) -> Device:
    """See `backends.contract.Backend.prepare`."""
    device = find_device(spec)
    # cuBLAS is repeatable only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(spec.seed)
    torch.use_deterministic_algorithms(True)
    # It would also write NaN into all memory that is about to be written to.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if device.type == "cuda":
        return Device("gpu", torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))
    return Device("cpu", f"{torch.get_num_threads()} threads")


def find_device(spec: ExperimentSpec) -> torch.device:
    """The torch device that `spec.device` means; raises UserError for `gpu` where torch sees none."""
    available = torch.cuda.is_available()
    if spec.device == "gpu" and not available:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise UserError(f"device = 'gpu': PyTorch ({built}) sees no GPU; use --device cpu, or install a driver for it")
    return torch.device("cuda" if available and spec.device != "cpu" else "cpu")


def versions() -> dict[str, str]:
    """See `backends.contract.Backend.versions`."""
    return {"torch": torch.__version__, "torchvision": torchvision.__version__}


def peak_gpu_memory() -> int | None:
    """See `backends.contract.Backend.peak_gpu_memory`."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None


def make_product(spec: ExperimentSpec, side: int) -> Callable[[], None]:
    """See `backends.contract.Backend.make_product`."""
    device = find_device(spec)
    kind = torch.bfloat16 if spec.precision == "bf16" else parameter_type(spec)
    left, right = (torch.rand(side, side, device=device).to(kind) for _ in range(2))

    def product() -> None:
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return product


def parameter_type(spec: ExperimentSpec) -> torch.dtype:
    """Type of the parameters."""
    return getattr(torch, precision.parameter_type(spec))
