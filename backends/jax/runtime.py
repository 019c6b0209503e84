"""Devices, exact arithmetic and precision in JAX."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from common.devices import precision, processes
from common.devices.device import Device
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError, UserError
from common.system.machine import available_cores

# Given to every jax.jit: XLA adds in any order on a GPU unless it is told not to.
COMPILER_OPTIONS = {"xla_gpu_deterministic_ops": True}
# How many devices share the work, set by `prepare`.
devices_in_use = 1


def prepare(spec: ExperimentSpec) -> Device:
    """See `common.contract.backend.Backend.prepare`.

    JAX has no global generator to seed: every random draw here is given a key made from the seed.
    """
    global devices_in_use
    if spec.devices > 1:
        join(spec)
    devices_in_use = spec.devices
    device = find_device(spec)
    jax.config.update("jax_default_device", device)
    # On a GPU the default is TF32; on a CPU this changes nothing.
    jax.config.update("jax_default_matmul_precision", "highest")
    # Without it JAX turns every float64 into a float32.
    jax.config.update("jax_enable_x64", spec.precision == "fp64")
    if device.platform == "gpu":
        major, minor = (int(part) for part in str(device.compute_capability).split("."))
        several = f"{spec.devices} x " if spec.devices > 1 else ""
        return Device("gpu", several + device.device_kind, (major, minor))
    several = f"{spec.devices} virtual devices on " if spec.devices > 1 else ""
    return Device("cpu", f"{several}{available_cores()} threads")


def join(spec: ExperimentSpec) -> None:
    """Have as many virtual devices on the CPU as the experiment asks of this process, and meet the other processes.

    Raises RunError where JAX has started with another number already: it takes such settings only before.
    """
    world, here = processes.world_of(spec), processes.local_devices(spec)
    try:
        if jax.config.jax_num_cpu_devices != here:
            jax.config.update("jax_num_cpu_devices", here)
        if world.size > 1 and not jax.distributed.is_initialized():
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(world.coordinator, world.size, world.rank)
    except RuntimeError as error:
        raise RunError(f"devices = {spec.devices}: JAX cannot be set up for them in this process: {error}") from error


def find_device(spec: ExperimentSpec) -> jax.Device:
    """The JAX device that `spec.device` means, of several this process's first; raises UserError where JAX sees no GPU
    or too few."""
    device, here = first_device(spec), processes.local_devices(spec)
    seen = len(jax.local_devices(backend=device.platform))
    if seen < here:
        raise UserError(
            f"devices = {spec.devices}: JAX sees {seen} {device.platform.upper()}s on this machine, and {here} are "
            "wanted of it; choose fewer --devices, or --device cpu"
        )
    return device


def placement(spec: ExperimentSpec) -> Sharding:
    """Where the numbers of a network are: on the experiment's device, or alike on each of several."""
    first = find_device(spec)
    if spec.devices == 1:
        return SingleDeviceSharding(first)
    here, devices = processes.local_devices(spec), jax.devices(first.platform)
    # As many of each process, in the order of the processes, as batches are shared.
    chosen = [
        device
        for process in range(processes.world().size)
        for device in [device for device in devices if device.process_index == process][:here]
    ]
    return NamedSharding(Mesh(np.array(chosen), ("batch",), axis_types=(AxisType.Auto,)), PartitionSpec())


def first_device(spec: ExperimentSpec) -> jax.Device:
    """The first device of this process that is of the kind that `spec.device` means; raises UserError for `gpu` where
    JAX sees none."""
    if spec.device != "cpu":
        try:
            return jax.local_devices(backend="gpu")[0]
        except RuntimeError as error:
            if spec.device == "gpu":
                raise UserError(
                    "device = 'gpu': JAX sees no GPU; `python3 noxfile.py -s environment-jax -- --cuda` installs the "
                    "variant that uses one (it needs NVIDIA's driver), or use --device cpu"
                ) from error
    return jax.local_devices(backend="cpu")[0]


def dtype_of(spec: ExperimentSpec) -> str:
    """The type of the parameters; raises RuntimeError when `prepare` did not set JAX up for it."""
    if jax.config.jax_enable_x64 != (spec.precision == "fp64"):
        raise RuntimeError(f"JAX is not set up for {spec.precision}: call prepare(spec) first")
    return precision.parameter_type(spec)


def compute_type(spec: ExperimentSpec) -> str:
    """The type that convolutions and the head compute in."""
    return "bfloat16" if spec.precision == "bf16" else dtype_of(spec)


def versions() -> dict[str, str]:
    """See `common.contract.backend.Backend.versions`."""
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "flaxmodels", "grain")}


def peak_gpu_memory() -> int | None:
    """See `common.contract.backend.Backend.peak_gpu_memory`."""
    device = jax.config.jax_default_device
    if device is None or device.platform != "gpu":
        return None
    statistics = device.memory_stats() or {}
    return statistics.get("peak_bytes_in_use")


def matmul_benchmark(spec: ExperimentSpec, side: int) -> Callable[[], None]:
    """See `common.contract.backend.Backend.matmul_benchmark`."""
    left, right = (jnp.ones((side, side), compute_type(spec), device=find_device(spec)) for _ in range(2))
    multiply = jax.jit(jnp.matmul, compiler_options=COMPILER_OPTIONS)

    def product() -> None:
        multiply(left, right).block_until_ready()

    return product
