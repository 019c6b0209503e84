"""ImageNet-1k's classes, and the place of the hot dog among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# "hotdog, hot dog, red hot". One edition of the chapter uses 713, which is "photocopier".
HOTDOG = 934
HOTDOG_NAME = "hotdog"
CLASS_NAMES = Path(__file__).parent / "imagenet_classes.json"


@cache
def class_names() -> tuple[str, ...]:
    """Return the 1000 class names in ImageNet-1k's order."""
    return tuple(json.loads(CLASS_NAMES.read_text(encoding="utf-8")))


def hotdog_index(names: Sequence[str]) -> int:
    """Find the row of a source head that means hot dog, by its name.

    Args:
        names: Class names of the source weights, in the order of the head rows.

    Returns:
        The index of the row.

    Raises:
        UserError: No class has that name, or a list of 1000 classes does not have it at HOTDOG.
    """
    if HOTDOG_NAME not in names:
        raise UserError(
            f"the source weights list {len(names)} classes and none is named {HOTDOG_NAME!r}; "
            "choose weights of an ImageNet network, such as --weights distilled"
        )
    index = list(names).index(HOTDOG_NAME)
    if len(names) == 1000 and index != HOTDOG:
        raise UserError(f"the source weights put {HOTDOG_NAME!r} at {index}, but ImageNet-1k has it at {HOTDOG}")
    return index


def reported_index(spec: ExperimentSpec, names: Sequence[str]) -> int | None:
    """Return the row of the source head that an experiment reports as the hot dog's.

    Args:
        spec: What the user chose; its `hotdog_index` goes before any name.
        names: Class names of the source weights, in the order of the head rows.

    Returns:
        The index of the row; None where the spec names none and no class is called hot dog.

    Raises:
        UserError: The source head does not have the row, or `hotdog_index` refuses the names.
    """
    if spec.hotdog_index is None:
        return hotdog_index(names) if HOTDOG_NAME in names else None
    if spec.hotdog_index >= len(names):
        raise UserError(f"hotdog_index = {spec.hotdog_index}: the source head has the rows 0 to {len(names) - 1}")
    return spec.hotdog_index
