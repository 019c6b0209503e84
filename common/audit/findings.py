"""Put together what is wrong with a data set, with the most important first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common.audit.duplicates import Group, find_groups, find_pairs
from common.audit.labels import Suspect
from common.audit.pictures import Picture
from common.audit.unreadable import kind_of
from common.data.folder import ImageData, Skipped

# From this many times as many pictures on, the largest class counts as out of balance with the smallest.
UNBALANCED = 3
# Training pictures below which a class counts as small.
FEW = 20
# Difference of a class's share between two splits, in percentage points, from which on it is told.
SHARE_APART = 10


@dataclass(frozen=True)
class Limits:
    """What counts as an odd size."""

    min_side: int = 64
    """Pixels: a picture whose shorter side has fewer is tiny."""
    max_ratio: float = 3.0
    """A picture whose longer side is more than so many times the shorter is extreme in shape."""


@dataclass(frozen=True)
class Unreadable:
    """A file that cannot be used: its name, of what kind it is, and what the reader says."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """What was found in a data set. Pictures are named by their index in `pictures`."""

    data: ImageData
    pictures: tuple[Picture, ...]
    unreadable: tuple[Unreadable, ...]
    groups: tuple[Group, ...]
    """Pictures that show the same."""
    tiny: tuple[int, ...]
    extreme: tuple[int, ...]
    balance: tuple[str, ...]
    """Sentences about classes that are out of balance."""
    limits: Limits
    suspects: tuple[Suspect, ...] = ()
    """Labels that are likely wrong, the most likely first."""
    unchecked: str | None = None
    """Why labels were not checked; None if they were."""

    @property
    def splits(self) -> list[str]:
        """The splits of the data, in the order train, validation, test; one empty name where there is none."""
        return list(dict.fromkeys(picture.split for picture in self.pictures))

    def between_splits(self, group: Group) -> bool:
        """Return whether the pictures of a group lie in more than one split."""
        return len({self.pictures[index].split for index in group.members}) > 1

    def labels_differ(self, group: Group) -> bool:
        """Return whether the pictures of a group have more than one label."""
        return len({self.pictures[index].sample.label for index in group.members}) > 1

    def class_of(self, index: int) -> str:
        """Return the class that a picture is given."""
        return self.data.classes[self.pictures[index].sample.label]

    def counts(self, split: str) -> list[int]:
        """Return the number of pictures of each class in a split."""
        found = Counter(picture.sample.label for picture in self.pictures if picture.split == split)
        return [found[label] for label in range(len(self.data.classes))]

    @property
    def leaks(self) -> list[Group]:
        """The groups that lie in more than one split."""
        return [group for group in self.groups if self.between_splits(group)]

    @property
    def contradictions(self) -> list[Group]:
        """The groups with more than one label."""
        return [group for group in self.groups if self.labels_differ(group)]

    @property
    def repeats(self) -> list[Group]:
        """The groups of one split and one label."""
        return [group for group in self.groups if not self.between_splits(group) and not self.labels_differ(group)]


def look(data: ImageData, pictures: Sequence[Picture], vanished: Sequence[Skipped], limits: Limits) -> Audit:
    """Find everything that needs no network.

    Args:
        data: The data, read with `bad_images` "skip".
        pictures: Its pictures, measured.
        vanished: Pictures that could not be read when they were measured.
        limits: What counts as an odd size.

    Returns:
        The findings, without suspects.
    """
    sizes = [(min(picture.width, picture.height), max(picture.width, picture.height)) for picture in pictures]
    audit = Audit(
        data,
        tuple(pictures),
        tuple(
            Unreadable(found.name, kind_of(found, data.root), found.reason) for found in (*data.skipped, *vanished)
        ),
        tuple(find_groups(len(pictures), find_pairs(pictures))),
        tuple(index for index, (short, _) in enumerate(sizes) if short < limits.min_side),
        tuple(index for index, (short, long) in enumerate(sizes) if long > limits.max_ratio * short),
        (),
        limits,
    )  # fmt: skip
    return Audit(**{**vars(audit), "balance": tuple(balance(audit))})


def balance(audit: Audit) -> list[str]:
    """Return a sentence for each way in which the classes are out of balance."""
    said = []
    names = audit.data.classes
    first = audit.splits[0]
    counts = audit.counts(first)
    largest, smallest = counts.index(max(counts)), counts.index(min(counts))
    if counts[largest] >= UNBALANCED * counts[smallest]:
        times = f"{counts[largest] / max(counts[smallest], 1):.0f} times"
        said.append(
            f"{names[largest]!r} has {times} as many {_training(first)}pictures as {names[smallest]!r}: "
            f"{counts[largest]:,} and {counts[smallest]:,}. --class-weights balanced makes up for it in training."
        )
    few = [f"{name!r} ({count})" for name, count in zip(names, counts, strict=True) if count < FEW]
    if few:
        said.append(
            f"Fewer than {FEW} {_training(first)}pictures: {', '.join(few[:10])}{' and more' * (len(few) > 10)}."
        )
    for other in audit.splits[1:]:
        said += _shares_apart(audit, first, other)
    return said


def _training(split: str) -> str:
    return "training " if split == "train" else ""


def _shares_apart(audit: Audit, first: str, other: str) -> list[str]:
    """Return a sentence about the class whose share differs most between two splits, if it differs much."""
    one, two = audit.counts(first), audit.counts(other)
    shares = [(100 * a / sum(one), 100 * b / sum(two)) for a, b in zip(one, two, strict=True)]
    apart = [abs(a - b) for a, b in shares]
    widest = apart.index(max(apart))
    if apart[widest] < SHARE_APART:
        return []
    a, b = shares[widest]
    return [f"{audit.data.classes[widest]!r} is {a:.0f} % of {first} and {b:.0f} % of {other}."]


def to_dict(audit: Audit, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the findings as plain values for JSON, which name pictures as the data does.

    Args:
        audit: The findings.
        facts: Values to put first, such as the command.
    """
    names = [picture.name for picture in audit.pictures]
    return {
        **facts,
        "data": {
            "name": audit.data.name, "root": str(audit.data.root), "classes": list(audit.data.classes),
            "pictures": {split or "all": audit.counts(split) for split in audit.splits},
        },
        "limits": asdict(audit.limits),
        "unreadable": [asdict(found) for found in audit.unreadable],
        "duplicates": [
            {
                "pictures": [names[index] for index in group.members],
                "between_splits": audit.between_splits(group),
                "labels_differ": audit.labels_differ(group),
                "pairs": [
                    {"first": names[pair.first], "second": names[pair.second], "kind": pair.kind, "bits": pair.distance}
                    for pair in group.pairs
                ],
            }
            for group in audit.groups
        ],
        "labels": {"unchecked": audit.unchecked, "suspects": [
            {
                "picture": names[found.index], "split": audit.pictures[found.index].split or None,
                "given": audit.class_of(found.index), "suggested": audit.data.classes[found.suggested],
                "confidence": round(found.confidence, 4), "given_confidence": round(found.given_confidence, 4),
            }
            for found in audit.suspects
        ]},
        "balance": list(audit.balance),
        "tiny": [_size(audit, index) for index in audit.tiny],
        "extreme": [_size(audit, index) for index in audit.extreme],
    }  # fmt: skip


def _size(audit: Audit, index: int) -> dict[str, Any]:
    picture = audit.pictures[index]
    return {"picture": picture.name, "width": picture.width, "height": picture.height}
