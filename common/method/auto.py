"""Choose a strategy, learning rates and epochs by the number of training images and their domain: `auto`.

The lines for up to 10,000 images of a similar domain were measured on photographs of flowers and of hot dogs, with the
weights `distilled` (docs/results.md). The others are the table of a chapter on transfer learning. All rates are for
Adam and the mean loss over batches of 32.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from common.data.folder import ImageData
from common.method import phases
from common.network.stages import STAGES
from common.spec.experiment import ExperimentSpec, StageMultiples, Strategy


@dataclass(frozen=True)
class Rule:
    """A line of the table RULES, of which the first that fits an experiment is taken."""

    domain: Literal["similar", "different"]
    most: int | None
    """The largest number of training images per class that the rule is for; None for any number."""
    strategy: Strategy
    changes: dict[str, Any]
    """Fields of the spec that the rule sets, with their values."""
    because: str
    """The reason, as a part of the sentence that `Choice.why` becomes."""


BACKBONE_AND_HEAD = {"learning_rate": 1e-4, "head_multiple": 10.0}
AUGMENTED = {"train_crop": "random_resized_crop", "flip": True}
RULES = (
    # Without augmentation the features of each image are computed once, so that many epochs cost next to nothing.
    Rule("similar", 299, "feature-extraction",
         {"learning_rate": 3e-3, "head_multiple": 1.0, "weight_decay": 1e-2, "train_crop": "none", "flip": False,
          "epochs": 40, "schedule": "cosine"},
         "too few to move the backbone"),
    Rule("similar", 10_000, "discriminative",
         {"learning_rate": 3e-4, "head_multiple": 10.0, "weight_decay": 0.0, "epochs": 8, "schedule": "cosine",
          **AUGMENTED},
         "enough to move every stage, early ones least, on augmented images"),
    Rule("similar", None, "fine-tune", BACKBONE_AND_HEAD, "enough to move every stage"),
    Rule("different", 10_000, "discriminative", {**BACKBONE_AND_HEAD, **AUGMENTED},
         "so every stage must move, early ones least, on augmented images"),
    Rule("different", None, "scratch", {"learning_rate": 1e-3, "head_multiple": 1.0},
         "enough to do without a source"),
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """The strategy that `auto` has chosen, and the reason."""

    domain: str
    images_per_class: int
    """Training images divided by classes, rounded down."""
    strategy: str
    why: str
    """The reason in one line, for the user."""
    set: dict[str, Any] = field(default_factory=dict)
    """The fields of the spec that were set, with their values."""


def resolve(spec: ExperimentSpec, data: ImageData, given: Collection[str] = ()) -> tuple[ExperimentSpec, Choice]:
    """Replace the strategy `auto` by the one that the table RULES has for the data.

    Optimizer, reduction of the loss, batch size and learning rates become those that the table is for: Adam and the
    mean loss over batches of 32. For up to 10,000 images of a similar domain, epochs and augmentation do so too.

    Args:
        spec: The experiment, with the strategy `auto`.
        data: The data as they are used, with the validation images already held back from the training images.
        given: Names of the fields that the user has set; they keep their values.

    Returns:
        The experiment with a strategy in the place of `auto`, and the choice.
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
    resolved = spec.replace(strategy=rule.strategy, **changes)
    why = (
        f"auto: {images:,} training images a class of a {spec.domain} domain, {rule.because}: {rule.strategy} with "
        f"{resolved.optimizer}, learning rate {_rates(resolved)}"
    )
    kept = sorted(set(meant) & set(given))
    if kept:
        why += f"; as given: {', '.join(kept)}"
    return resolved, Choice(spec.domain, images, rule.strategy, why, changes)


def _rates(spec: ExperimentSpec) -> str:
    """Return each learning rate with the first stage that has it, such as `0.0001 from layer3, 0.001 from head`."""
    multiples = phases.phases(spec)[-1].multiples
    rates = [(spec.learning_rate * multiples[stage], stage) for stage in STAGES]
    changes = [rates[0], *(now for before, now in itertools.pairwise(rates) if now[0] != before[0])]
    return ", ".join(f"{rate:g} from {stage}" for rate, stage in changes if rate)
