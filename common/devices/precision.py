"""The precision of an experiment's arithmetic: resolve `auto` by the device, and name the type of parameters."""

from __future__ import annotations

from pathlib import Path

from common.devices.device import Device
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# NVIDIA's Ampere, the first with matrix units for bfloat16 and TF32.
AMPERE = (8, 0)


def resolve(spec: ExperimentSpec, device: Device) -> tuple[ExperimentSpec, str]:
    """Work out the precision of an experiment on its device.

    Args:
        spec: The experiment.
        device: Its device.

    Returns:
        `spec` with the precision that `auto` means on `device`, and the reason for it in words.

    Raises:
        UserError: The precision is `tf32`, which the device does not have.
    """
    if spec.precision == "tf32" and (device.compute_capability or (0, 0)) < AMPERE:
        raise UserError(
            f"precision = 'tf32': NVIDIA's GPUs have it from Ampere on, and this experiment runs on {device.kind} "
            f"({device.name}); choose --precision fp32"
        )
    if spec.precision != "auto":
        return spec, "as the spec says"
    fast, reason = fast_bf16(spec.backend, device)
    return spec.replace(precision="bf16" if fast else "fp32"), reason


def fast_bf16(backend: str, device: Device) -> tuple[bool, str]:
    """Return whether bfloat16 is faster than float32 with a backend on a device, and the reason in words."""
    if backend == "mxnet":
        return False, "MXNet trains in float32 only"
    if device.kind == "gpu":
        known = device.compute_capability
        words = f"compute capability {known[0]}.{known[1]}" if known else "unknown compute capability"
        return known is not None and tuple(known) >= AMPERE, f"a GPU of {words}; Ampere is 8.0"
    flags = cpu_flags()
    if "amx_bf16" in flags:
        return True, "the processor has AMX"
    if "avx512_bf16" in flags:
        # On Emerald Rapids its dot product of pairs runs at half the rate of float32's multiply-add.
        return False, "the processor has AVX512-BF16 without AMX, which is no faster than float32"
    return False, "the processor has no bfloat16 arithmetic"


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the processor's features by the names that Linux gives them; an empty set where it gives none."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "")
    return frozenset(flags.split())


def parameter_type(spec: ExperimentSpec) -> str:
    """Return the type of parameters, BatchNorm statistics, losses and logits.

    >>> parameter_type(ExperimentSpec(precision="bf16"))
    'float32'

    Args:
        spec: The experiment, whose precision `resolve` has settled.

    Returns:
        `float64` in a float64 experiment, otherwise `float32`.

    Raises:
        RuntimeError: The precision is still `auto`.
    """
    if spec.precision == "auto":
        raise RuntimeError("precision = 'auto': call common.devices.precision.resolve first")
    return "float64" if spec.precision == "fp64" else "float32"
