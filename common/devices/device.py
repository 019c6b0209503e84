"""Where an experiment runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """Where an experiment runs."""

    kind: str
    """`cpu` or `gpu`."""
    name: str
    """The hardware in words, such as the GPU's product name."""
    compute_capability: tuple[int, int] | None = None
    """NVIDIA's number of a GPU's generation, (8, 0) for Ampere."""
