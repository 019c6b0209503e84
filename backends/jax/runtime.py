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
# Number of devices that share the work, set by `prepare`.
devices_in_use = 1


def prepare(spec: ExperimentSpec) -> Device:
    """Choose the devices and set JAX to exact, repeatable arithmetic; with several devices join the other processes.

    Matrix products get full float32 precision (TF32 only in an experiment of that precision), and float64 is switched
    on for `precision` = fp64. JAX has no global generator to seed: every random draw in this backend gets a key made of
    the experiment's seed. A missing device ends in a UserError (`find_device`).

    Args:
        spec: The experiment.

    Returns:
        The kind of device and its description; for a GPU its compute capability too.
    """
    global devices_in_use
    if spec.devices > 1:
        join(spec)
    devices_in_use = spec.devices
    device = find_device(spec)
    jax.config.update("jax_default_device", device)
    # On a GPU the default is TF32; on a CPU this changes nothing.
    products = "tensorfloat32" if spec.precision == "tf32" else "highest"
    jax.config.update("jax_default_matmul_precision", products)
    # Without it JAX turns every float64 into a float32.
    jax.config.update("jax_enable_x64", spec.precision == "fp64")
    if device.platform == "gpu":
        major, minor = (int(part) for part in str(device.compute_capability).split("."))
        several = f"{spec.devices} x " if spec.devices > 1 else ""
        return Device("gpu", several + device.device_kind, (major, minor))
    several = f"{spec.devices} virtual devices on " if spec.devices > 1 else ""
    return Device("cpu", f"{several}{available_cores()} threads")


def join(spec: ExperimentSpec) -> None:
    """Create this process's share of virtual CPU devices, and connect it with the other processes of the experiment.

    JAX takes such settings only before it starts.

    Args:
        spec: The experiment.

    Raises:
        RunError: JAX has started already, with another number of devices.
    """
    world, here = processes.world_of(spec), processes.local_devices(spec)
    try:
        if spec.device != "gpu" and jax.config.jax_num_cpu_devices != here:
            jax.config.update("jax_num_cpu_devices", here)
        if world.size > 1 and not jax.distributed.is_initialized():
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(world.coordinator, world.size, world.rank)
    except RuntimeError as error:
        raise RunError(f"devices = {spec.devices}: JAX cannot be set up for them in this process: {error}") from error


def find_device(spec: ExperimentSpec) -> jax.Device:
    """Return the JAX device that `spec.device` means; of several, the first of this process.

    Args:
        spec: The experiment.

    Returns:
        The device.

    Raises:
        UserError: JAX sees no GPU where one is asked for, or fewer devices than this process needs.
    """
    device, here = first_device(spec), processes.local_devices(spec)
    seen = len(jax.local_devices(backend=device.platform))
    if seen < here:
        raise UserError(
            f"devices = {spec.devices}: JAX sees {seen} {device.platform.upper()}s on this machine, and {here} are "
            "wanted of it; choose fewer --devices, or --device cpu"
        )
    return device


def placement(spec: ExperimentSpec) -> Sharding:
    """Return where the arrays of a network are kept: on the experiment's device, or replicated on each of several.

    The mesh has one axis, `batch`. Its devices are in the order of the processes, in which batches are shared.
    """
    first = find_device(spec)
    if spec.devices == 1:
        return SingleDeviceSharding(first)
    here, devices = processes.local_devices(spec), jax.devices(first.platform)
    # The same number from each process, in the order of the processes, because batches are shared in that order.
    chosen = [
        device
        for process in range(processes.world().size)
        for device in [device for device in devices if device.process_index == process][:here]
    ]
    return NamedSharding(Mesh(np.array(chosen), ("batch",), axis_types=(AxisType.Auto,)), PartitionSpec())


def first_device(spec: ExperimentSpec) -> jax.Device:
    """Return this process's first GPU if JAX sees one and `spec.device` is not `cpu`, otherwise its first CPU.

    Args:
        spec: The experiment.

    Returns:
        The device.

    Raises:
        UserError: `spec.device` is `gpu` and JAX sees none.
    """
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
    """Return the dtype of the parameters; raise RuntimeError if `prepare` did not set JAX up for it."""
    if jax.config.jax_enable_x64 != (spec.precision == "fp64"):
        raise RuntimeError(f"JAX is not set up for {spec.precision}: call prepare(spec) first")
    return precision.parameter_type(spec)


def compute_type(spec: ExperimentSpec) -> str:
    """Return the dtype that convolutions and the head compute in: bfloat16 for bf16, else the parameters'."""
    return "bfloat16" if spec.precision == "bf16" else dtype_of(spec)


def versions() -> dict[str, str]:
    """Return the version of JAX and of each package beside it that computes or reads images."""
    return {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "flaxmodels", "grain")}


def peak_gpu_memory() -> int | None:
    """Return the most bytes that XLA has held on the GPU; None on a CPU, or where XLA does not count them."""
    device = jax.config.jax_default_device
    if device is None or device.platform != "gpu":
        return None
    statistics = device.memory_stats() or {}
    return statistics.get("peak_bytes_in_use")


def matmul_benchmark(spec: ExperimentSpec, side: int) -> Callable[[], None]:
    """Return a function that multiplies two square matrices of `side` rows and waits for the product.

    XLA compiles the product; without `block_until_ready` a call would return before the device has computed.
    """
    left, right = (jnp.ones((side, side), compute_type(spec), device=find_device(spec)) for _ in range(2))
    multiply = jax.jit(jnp.matmul, compiler_options=COMPILER_OPTIONS)

    def product() -> None:
        multiply(left, right).block_until_ready()

    return product
