"""The strategy `auto`: which part of the network to train, and how fast, by how many images there are of what kind.

Source: the table of a chapter on transfer learning whose rates are for Adam and the mean loss over batches of 32.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from common.folder import ImageData
from common.spec import ExperimentSpec, StageMultiples, Strategy


@dataclass(frozen=True)
class Rule:
    """A line of the table. The first that fits is taken."""

    domain: Literal["similar", "different"]
    most: int | None
    """The most training images a class that it is for; None for any number."""
    strategy: Strategy
    changes: dict[str, Any]
    because: str


BACKBONE_AND_HEAD = {"learning_rate": 1e-4, "head_multiple": 10.0}
RULES = (
    Rule("similar", 999, "feature-extraction", {"learning_rate": 1e-3, "head_multiple": 1.0},
         "too few to move the backbone: the head alone learns, at 1e-3"),
    Rule("similar", 10_000, "partial", {**BACKBONE_AND_HEAD, "partial_stages": 2},
         "enough for the last two stages at 1e-4, below a head at 1e-3"),
    Rule("similar", None, "fine-tune", BACKBONE_AND_HEAD,
         "enough for all stages at 1e-4, below a head at 1e-3"),
    Rule("different", 10_000, "discriminative",
         {**BACKBONE_AND_HEAD, "flip": True, "train_crop": "random_resized_crop"},
         "all stages must move, augmented: early ones at 1e-5, late ones at 1e-4, the head at 1e-3"),
    Rule("different", None, "scratch", {"learning_rate": 1e-3, "head_multiple": 1.0},
         "enough to need no source: everything learns from random values, at 1e-3"),
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What `auto` came to."""

    domain: str
    images_per_class: int
    """Training images by classes, rounded down."""
    strategy: str
    why: str
    """One line."""
    set: dict[str, Any] = field(default_factory=dict)
    """The fields that were set, with their values."""


def resolve(spec: ExperimentSpec, data: ImageData, given: Collection[str] = ()) -> tuple[ExperimentSpec, Choice]:
    """The experiment with a strategy in the place of `auto`, and the choice.

    Optimizer, reduction of the loss, batch size and rates become those that the table means, but for the fields in
    `given`, which the user has named. data: as it is used, its validation images held back.
    """
    images = len(data.train) // len(data.classes)
    rule = next(r for r in RULES if r.domain == spec.domain and (r.most is None or images <= r.most))
    meant = {
        "optimizer": "adam",
        "loss_reduction": "mean",
        "batch_size": 32,
        "stage_multiples": StageMultiples(),
        **rule.changes,
    }
    changes = {name: value for name, value in meant.items() if name not in given}
    why = f"auto: {images:,} training images a class of a {spec.domain} domain, {rule.because} ({rule.strategy})"
    kept = sorted(set(meant) & set(given))
    if kept:
        why += f"; as given: {', '.join(kept)}"
    return spec.replace(strategy=rule.strategy, **changes), Choice(spec.domain, images, rule.strategy, why, changes)
