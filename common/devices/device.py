"""The description of the device that an experiment runs on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """The device that an experiment runs on."""

    kind: str
    """Either `cpu` or `gpu`."""
    name: str
    """The hardware in words, such as the GPU's product name."""
    compute_capability: tuple[int, int] | None = None
    """NVIDIA's number of a GPU's generation, such as (8, 0) for Ampere; None where it is not known."""
