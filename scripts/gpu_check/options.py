"""The options of `scripts.gpu_check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.spec.names import BackendName

PartName = Literal["tests", "crosscheck", "repeat", "resident", "precision", "bench"]


@dataclass
class GpuCheckOptions:
    """Check on this machine's GPU what the tests and the crosscheck check on a CPU, and measure its speed.

    Each part runs in processes of its own and leaves a JSON file; a part that fails does not stop the others.
    """

    backends: tuple[BackendName, ...] = ("torch", "jax")
    """The backends, all of which this Python must have."""
    only: tuple[PartName, ...] = ()
    """The parts to run; by default all."""
    device: Literal["gpu", "cpu"] = "gpu"
    """`cpu` rehearses the parts on a machine without a GPU; the files say so."""
    image_size: int = 224
    """Side of the images in bench, in pixels."""
    batch_size: tuple[int, ...] = (32, 128)
    """Batch sizes in bench."""
    epochs: int = 3
    """Epochs of each run whose predictions are compared."""
    train_limit: int | None = None
    """Training images of each run; by default all of the demonstration's."""
    time_limit: float = 300.0
    """Seconds that a command of a part may take."""
    output: Path = Path("runs/gpu-check")
    """Folder of the results."""
