"""Say what was found in a weights file: the network, its names, its head, and what was left out."""

from __future__ import annotations

from pathlib import Path

from common.network import resnet
from common.network.conversion.convert import Conversion
from common.network.conversion.kinds import Kind
from common.spec.names import MODELS_BY_BACKEND

SHOWN = 3


def lines(path: Path, kind: Kind, tensors: int, conversion: Conversion) -> list[str]:
    """Return what was found, in lines.

    Args:
        path: The file.
        kind: Its kind.
        tensors: Number of tensors in it.
        conversion: The network.

    Returns:
        File, architecture and names, head, and for each reason what was left out.
    """
    own, new = next(pair for pair in conversion.mapped.items() if pair[1] == "layer1.0.conv1.weight")
    named = f": {own} -> {new}, ..." if own != new else ", under torchvision's names"
    behind = f" behind {conversion.prefix!r}" if conversion.prefix else ""
    said = [
        f"{path}: {kind.words}, {tensors} tensors",
        f"network: {conversion.architecture}, {len(conversion.mapped)} tensors{behind}{named}",
        f"head: {head_in_words(conversion)}",
    ]
    for reason, names in conversion.left_out.items():
        more = ", ..." if len(names) > SHOWN else ""
        said.append(f"left out: {len(names)} tensors ({reason}): {', '.join(names[:SHOWN])}{more}")
    return said


def head_in_words(conversion: Conversion) -> str:
    """Return how many classes the head has and where it comes from, or why there is none."""
    own = {new: name for name, new in conversion.mapped.items()}
    if conversion.classes:
        bias = own.get("fc.bias", "no bias, so zeros")
        return f"{conversion.classes} classes, from {own['fc.weight']} and {bias}"
    return f"none ({conversion.head.why_not})" if conversion.head.why_not else "none"


def model_option(architecture: str) -> str:
    """Return the options of `scripts.run` that an architecture needs, for the first backend that has it."""
    for backend, models in MODELS_BY_BACKEND.items():
        for model in models:
            if resnet.architecture(backend, model) == architecture:
                chosen = "" if backend == "torch" else f" --backend {backend}"
                return chosen + ("" if model == "resnet18" else f" --model {model}")
    raise ValueError(f"no backend has {architecture}")
