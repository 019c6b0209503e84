"""Devices, random seeds and exact arithmetic in TensorFlow, which is set up when this module is imported."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from common.devices import precision
from common.devices.device import Device
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError, UserError
from common.system.machine import available_cores, without_messages

# Keras reads the first variable, and TensorFlow the others, when they are imported.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
# TensorFlow writes its greetings before it reads the log level.
with without_messages():
    import keras
    import keras_hub
    import tensorflow as tf

# TensorFlow warns of retracing where several models are built in one process.
tf.get_logger().setLevel("ERROR")

# The order of sums depends on the number of threads, which TensorFlow chooses by more than the machine.
CPU_THREADS = available_cores()
tf.config.threading.set_intra_op_parallelism_threads(CPU_THREADS)


def prepare(spec: ExperimentSpec) -> Device:
    """Choose the devices, seed Keras and TensorFlow, and make arithmetic exact (TF32 only if asked for) and repeatable.

    Call it before anything else. One process drives all devices; a CPU is split into virtual ones.

    Args:
        spec: The experiment.

    Returns:
        The device, or all of them together. UserError is raised as by `find_device` and `check_devices`.
    """
    gpu = find_device(spec) != "/CPU:0"
    if spec.devices > 1:
        check_devices(spec)
    keras.utils.set_random_seed(spec.seed)
    keras.config.set_floatx("float64" if spec.precision == "fp64" else "float32")
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(spec.precision == "tf32")
    if gpu:
        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        several = f"{spec.devices} x " if spec.devices > 1 else ""
        return Device("gpu", several + details.get("device_name", "GPU"), details.get("compute_capability"))
    several = f", {spec.devices} virtual devices" if spec.devices > 1 else ""
    return Device("cpu", f"{CPU_THREADS} threads{several}")


def find_device(spec: ExperimentSpec) -> str:
    """Return the TensorFlow device that `spec.device` means; with several, the first.

    Args:
        spec: The experiment.

    Returns:
        `/GPU:0` or `/CPU:0`.

    Raises:
        UserError: `spec.device` is `gpu`, and TensorFlow sees none.
    """
    available = bool(tf.config.list_physical_devices("GPU"))
    if spec.device == "gpu" and not available:
        raise UserError(
            "device = 'gpu': TensorFlow sees no GPU; use --device cpu, or install the CUDA variant with "
            "`nox -s environment-keras -- --cuda` and a driver for the GPU"
        )
    return "/GPU:0" if available and spec.device != "cpu" else "/CPU:0"


def check_devices(spec: ExperimentSpec) -> None:
    """Check that there are the GPUs that `spec` shares a batch over, or split the CPU into as many virtual devices.

    Args:
        spec: The experiment.

    Raises:
        UserError: There are fewer GPUs than `spec.devices`.
        RunError: TensorFlow has started with fewer virtual devices, whose number can then no longer change.
    """
    if find_device(spec) != "/CPU:0":
        gpus = len(tf.config.list_physical_devices("GPU"))
        if gpus < spec.devices:
            raise UserError(
                f"devices = {spec.devices}: TensorFlow sees {gpus} GPU{'s' if gpus > 1 else ''}; choose --devices "
                f"{gpus}, or --device cpu for virtual devices"
            )
        return
    (cpu,) = tf.config.list_physical_devices("CPU")
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) >= spec.devices:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * spec.devices)
    except RuntimeError as error:
        raise RunError(
            f"devices = {spec.devices}: TensorFlow has already started with fewer virtual devices in this process; "
            "run the experiment in a process of its own"
        ) from error


def placement(spec: ExperimentSpec) -> AbstractContextManager:
    """Return the context in which a new model's variables are placed: on one device, or a copy on each of several."""
    device = find_device(spec)
    return tf.device(device) if spec.devices == 1 else make_strategy(device, spec.devices).scope()


def placement_of(model: keras.Model) -> AbstractContextManager:
    """Return the context in which new variables are placed like those of a model: on its device, or a copy on each."""
    strategy = model.distribute_strategy
    return strategy.scope() if strategy.num_replicas_in_sync > 1 else tf.device(device_of(model))


def device_of(model: keras.Model) -> str:
    """Return where the model's variables are, and so where it computes; the first device, if there are several."""
    return model.layers[-1].kernel.value.device


@functools.cache
def make_strategy(first: str, devices: int) -> tf.distribute.MirroredStrategy:
    """Return the strategy of data parallelism over so many devices of the kind of the first; there is one of each."""
    return tf.distribute.MirroredStrategy([first.replace("0", str(number)) for number in range(devices)])


def versions() -> dict[str, str]:
    """Return the versions of keras, keras-hub and tensorflow."""
    return {"keras": keras.__version__, "keras-hub": keras_hub.__version__, "tensorflow": tf.__version__}


def peak_gpu_memory() -> int | None:
    """Return the most bytes that TensorFlow held on the first GPU, or None where it sees no GPU."""
    if not tf.config.list_physical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def matmul_benchmark(spec: ExperimentSpec, side: int) -> Callable[[], None]:
    """Return a function that multiplies two random square matrices on the device and waits for the product.

    Args:
        spec: The experiment; its precision is that of the matrices.
        side: Rows of each matrix.

    Returns:
        A function without arguments; it waits by copying one number of the product to the host.
    """
    kind = "bfloat16" if spec.precision == "bf16" else precision.parameter_type(spec)
    with tf.device(find_device(spec)):
        left, right = (tf.cast(tf.random.stateless_uniform((side, side), (0, seed)), kind) for seed in range(2))

    def product() -> None:
        # The copy of one number waits for the product.
        tf.matmul(left, right)[0, 0].numpy()

    return product


def dtype_policy(spec: ExperimentSpec) -> str:
    """Return Keras' name of a layer's precision: the type it computes in, and that of its variables."""
    return "mixed_bfloat16" if spec.precision == "bf16" else precision.parameter_type(spec)
