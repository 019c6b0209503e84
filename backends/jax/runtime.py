"""Device, exact arithmetic and precision in JAX."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata

import jax
import jax.numpy as jnp

from backends.contract import Device
from common import precision
from common.errors import UserError
from common.spec import ExperimentSpec

# Given to every jax.jit: XLA adds in any order on a GPU unless it is told not to.
COMPILER_OPTIONS = {"xla_gpu_deterministic_ops": True}


def prepare(spec: ExperimentSpec) -> Device:
    """See `backends.contract.Backend.prepare`.

    JAX has no global generator to seed: every random draw here is given a key made from the seed.
    """
    device = find_device(spec)
    jax.config.update("jax_default_device", device)
    # On a GPU the default is TF32; on a CPU this changes nothing.
    jax.config.update("jax_default_matmul_precision", "highest")
    # Without it JAX turns every float64 into a float32.
    jax.config.update("jax_enable_x64", spec.precision == "fp64")
    if device.platform == "gpu":
        major, minor = (int(part) for part in str(device.compute_capability).split("."))
        return Device("gpu", device.device_kind, (major, minor))
    return Device("cpu", f"{os.cpu_count()} threads")


def find_device(spec: ExperimentSpec) -> jax.Device:
    """The JAX device that `spec.device` means; raises UserError for `gpu` where JAX sees none."""
    if spec.device != "cpu":
        try:
            return jax.devices("gpu")[0]
        except RuntimeError as error:
            if spec.device == "gpu":
                raise UserError(
                    "device = 'gpu': JAX sees no GPU; `python3 noxfile.py -s environment-jax -- --cuda` installs the "
                    "variant that uses one (it needs NVIDIA's driver), or use --device cpu"
                ) from error
    return jax.devices("cpu")[0]


def dtype_of(spec: ExperimentSpec) -> str:
    """The type of the parameters; raises RuntimeError when `prepare` did not set JAX up for it."""
    if jax.config.jax_enable_x64 != (spec.precision == "fp64"):
        raise RuntimeError(f"JAX is not set up for {spec.precision}: call prepare(spec) first")
    return precision.parameter_type(spec)


def compute_type(spec: ExperimentSpec) -> str:
    """The type that convolutions and the head compute in."""
    return "bfloat16" if spec.precision == "bf16" else dtype_of(spec)


def versions() -> dict[str, str]:
    """See `backends.contract.Backend.versions`."""
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "flaxmodels", "grain")}


def peak_gpu_memory() -> int | None:
    """See `backends.contract.Backend.peak_gpu_memory`."""
    device = jax.config.jax_default_device
    if device is None or device.platform != "gpu":
        return None
    statistics = device.memory_stats() or {}
    return statistics.get("peak_bytes_in_use")


def make_product(spec: ExperimentSpec, side: int) -> Callable[[], None]:
    """See `backends.contract.Backend.make_product`."""
    left, right = (jnp.ones((side, side), compute_type(spec), device=find_device(spec)) for _ in range(2))
    multiply = jax.jit(jnp.matmul, compiler_options=COMPILER_OPTIONS)

    def product() -> None:
        multiply(left, right).block_until_ready()

    return product
