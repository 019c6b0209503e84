"""Hold test images back where the data has none: the same share of each class, and never a picture's near-duplicate."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.data import duplicates
from common.data.listing import File, Listing
from common.system.errors import UserError

SHARE = 0.2
"""The part of each class that is held back."""


@dataclass(frozen=True)
class HeldBack:
    """A split that the project made."""

    seed: int
    share: float
    near_duplicates: int
    """Images that have another nearly like them, and were kept on one side with it."""
    test: tuple[str, ...]
    """The test images, as paths below the folder of the data."""


def divide(listing: Listing, seed: int, progress: bool) -> tuple[Listing, HeldBack | None]:
    """Give each image a split: the data's own, or one that this project makes.

    Args:
        listing: The images. Where they have a validation split and no test images, the former takes the latter's place.
        seed: The seed of the draws.
        progress: Whether a progress bar may be shown.

    Returns:
        The listing, and what was held back, None where the data has splits of its own. UserError of `hold_back` passes
        through.
    """
    splits = {file.split for file in listing.files}
    if "validation" in splits and "test" not in splits:
        return _named(_validation_for_test(listing)), None
    # With a single class there is nothing to divide; whoever reads the data refuses it.
    if splits != {""} or len({file.label for file in listing.files}) < 2:
        return _named(listing), None
    numbers = duplicates.groups([file.path for file in listing.files], progress)
    files, held_back = hold_back(listing.files, numbers, seed)
    note = f"no test folder: {100 * SHARE:g} % held back, seed {seed}"
    if held_back.near_duplicates:
        note += f", {held_back.near_duplicates} near-duplicates kept together"
    return _named(replace(listing, files=tuple(files), notes=(note, *listing.notes))), held_back


def _validation_for_test(listing: Listing) -> Listing:
    files = tuple(replace(file, split="test") if file.split == "validation" else file for file in listing.files)
    places = dict(listing.places)
    place = places.pop("validation")
    folder = f"{Path(place).name}/" if Path(place).is_dir() else "the validation split"
    note = f"no test folder: {folder} is the test set"
    return replace(listing, files=files, places=(*places.items(), ("test", place)), notes=(note, *listing.notes))


def _named(listing: Listing) -> Listing:
    """Return the listing with a name of its own for each image, where two would share one."""
    counts = Counter(file.name for file in listing.files)
    files = (replace(file, place=file.shown) if counts[file.name] > 1 else file for file in listing.files)
    return replace(listing, files=tuple(files))


def hold_back(files: Sequence[File], groups: Sequence[int], seed: int) -> tuple[list[File], HeldBack]:
    """Divide images into training and test images.

    An image's draw depends on the seed, its class and its path below the folder of its class alone, so that a folder,
    its zip and its table are divided alike, and a folder that grows keeps most of its split.

    Args:
        files: The images.
        groups: For each image the number of its group; images of a group stay on one side.
        seed: The seed of the draws.

    Returns:
        The images with their splits, and what was done.

    Raises:
        UserError: A class has too few images that are not nearly alike.
    """
    counts = Counter(file.label for file in files)
    for label, count in counts.items():
        if count < 2:
            (alone,) = (file.path for file in files if file.label == label)
            raise UserError(
                f"Class {label} has one image ({alone}), and no test folder says what to test on: holding images back "
                "takes at least two in each class."
            )
    members: dict[int, list[File]] = defaultdict(list)
    for file, group in zip(files, groups, strict=True):
        members[group].append(file)
    ordered = sorted(members.values(), key=lambda group: min(_draw(file, seed) for file in group))
    chosen = _choose(ordered, counts)
    shown = sorted((f.label, f.name, f.shown) for group in ordered if id(group) in chosen for f in group)
    paths = {file.path for group in ordered if id(group) in chosen for file in group}
    divided = [replace(file, split="test" if file.path in paths else "train") for file in files]
    alike = sum(len(group) for group in members.values() if len(group) > 1)
    return divided, HeldBack(seed, SHARE, alike, tuple(name for _, _, name in shown))


def _draw(file: File, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{file.label}\0{file.place}".encode("utf-8", "surrogateescape")).hexdigest()


def _choose(ordered: Sequence[list[File]], counts: Counter[str]) -> set[int]:
    """Return the ids of the groups to test on: those drawn first that no class's share is too small for."""
    wanted = {label: min(max(round(SHARE * count), 1), count - 1) for label, count in counts.items()}
    taken: Counter[str] = Counter()
    chosen: set[int] = set()
    for group in ordered:
        labels = Counter(file.label for file in group)
        if all(taken[label] + count <= wanted[label] for label, count in labels.items()):
            taken += labels
            chosen.add(id(group))
    # A class whose images are nearly all in large groups gets the smallest one, if another is left to train on.
    for label, count in counts.items():
        groups = [group for group in ordered if any(file.label == label for file in group)]
        if not taken[label]:
            smallest = min(groups, key=len)
            labels = Counter(file.label for file in smallest)
            if any(taken[other] + number >= counts[other] for other, number in labels.items()):
                raise UserError(
                    f"Class {label} has {count} images that are nearly alike, so none can be held back to test on. "
                    "Give test images in a folder test/, or a table with a column split."
                )
            taken += labels
            chosen.add(id(smallest))
    return chosen
