"""Read a folder or table to labelled samples, and find every unreadable image before training begins."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

from PIL import Image

from common.data import check, holdout, layouts, tables
from common.data.holdout import HeldBack
from common.data.images import USUAL, Decoding, open_rgb
from common.data.listing import File, Listing, and_so_on
from common.data.listing import Skipped as Skipped
from common.system.errors import UserError

BadImages = Literal["error", "skip", "load"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Sample:
    """One image: its file, its class index, and its name, split/class/file ("test/hotdog/0001.jpg") in any layout."""

    path: Path
    label: int
    name: str
    mark: str = field(default="", compare=False)
    """Size and date of the file when the data set was read, before any pixel of it; empty if not known."""
    decoding: Decoding = field(default=USUAL, compare=False)
    """How the user wants the file to be read."""


class Read(Protocol):
    """A function that reads the image of a sample, upright and RGB; threads may call it at once."""

    def __call__(self, sample: Sample, short_side: int | None = None, /) -> Image.Image:
        """Return the image, reduced to a short side of `short_side` pixels where it is larger; None for as it is."""


def read_file(sample: Sample, short_side: int | None = None) -> Image.Image:
    """Decode a sample's file by `open_rgb`; an unreadable one raises `common.data.images.UnreadableImage`."""
    return open_rgb(sample.path, short_side, sample.decoding)


@dataclass(frozen=True)
class ImageData:
    """A data set on disk. Samples are sorted by class, then by name; labels index `classes`."""

    name: str
    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]
    validation: tuple[Sample, ...] = ()
    """Images held back from `train`, or those that the data itself has for that."""
    notes: tuple[str, ...] = ()
    """How the data was understood, where there is something to say."""
    held_back: HeldBack | None = None
    """The split that the project made, None where the data has test images."""
    """Images held back from `train`."""
    remarks: tuple[str, ...] = ()
    """Sentences on files that were read although there is something to say of them."""
    read: Read = field(default=read_file, compare=False, repr=False)
    """Function that threads of the shared pipeline read an image by; `common.data.decoded` has a faster one."""

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name -> label."""
        return {name: index for index, name in enumerate(self.classes)}

    @property
    def summary(self) -> str:
        """The line that says what was understood of the data."""
        counts = [("class", "classes", len(self.classes))]
        for split, samples in (("training", self.train), ("validation", self.validation), ("test", self.test)):
            if samples:
                counts.append((f"{split} image", f"{split} images", len(samples)))
        words = ", ".join(f"{count:,} {one if count == 1 else many}" for one, many, count in counts)
        return "; ".join([words, *self.notes])

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the names and byte sizes of the samples.

        It is equal for equal copies anywhere on disk, however many of the training images are held back.
        """
        digest = hashlib.sha256()
        train = sorted((*self.train, *self.validation), key=lambda sample: (sample.label, sample.name))
        for sample in (*train, *self.test):
            digest.update(f"{sample.name}\0{sample.path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def read_folder(
    root: str | os.PathLike[str],
    *,
    bad_images: BadImages = "error",
    train_limit: int | None = None,
    test_limit: int | None = None,
    progress: bool = True,
    short_side: int | None = None,
    split_seed: int = 0,
    decoding: Decoding = USUAL,
) -> ImageData:
    """Read a folder or table, and decode every image that is used once.

    `common.data.layouts` and `common.data.tables` say what they may look like. Classes are sorted by name (hotdog = 0,
    not-hotdog = 1); images may lie in deeper folders. Without test images, those of the validation split take their
    place; without these, `common.data.holdout` holds test images back.

    Args:
        root: The folder, or the table.
        bad_images: With "error", unreadable images and files that are no images raise. With "skip" they are left out
            and listed in `skipped`, so a limited split may come out that much smaller. "load" does the same, but reads
            JPEGs that lack their end as far as they go.
        train_limit: Most training images over all classes, shared evenly between them and spread evenly through each
            sorted list; None for all.
        test_limit: The same for the test images.
        progress: Whether a progress bar may be shown.
        short_side: The short side in pixels to which larger images will be reduced, which makes decoding them faster;
            None for images as they are.
        split_seed: The seed by which test images are held back.
        decoding: How files are read; `bad_images` says of it whether files that lack their end are.

    Returns:
        The data set, with validation images only where it has some beside its test images.

    Raises:
        UserError: The root is missing, the layout is another, a class is empty or in one split only, a limit is smaller
            than the number of classes, or files cannot be used and `bad_images` is "error".
    """
    if bad_images not in get_args(BadImages):
        raise UserError(f"--bad-images is {bad_images!r}; it can be error, skip or load.")
    decoding = replace(decoding, load_truncated=bad_images == "load")
    root = Path(root)
    is_table = root.is_file() and root.suffix.lower() in tables.SUFFIXES
    listing = tables.read(root, anywhere=True) if is_table else layouts.find(root)
    listing, held_back = holdout.divide(listing, split_seed, progress)
    classes = _classes(listing, root)
    limits = {"train": train_limit, "test": test_limit, "validation": None}
    chosen = {split: _limited(_by_class(listing, split, classes), limit, split) for split, limit in limits.items()}
    files = [file for per_class in chosen.values() for found in per_class for file in found]
    reasons, remarks = check.check([(file.path, file.shown) for file in files], short_side, decoding, progress)
    unreadable = {file: reason for file, reason in zip(files, reasons, strict=True) if reason is not None}
    problems = [*listing.problems, *(Skipped(file.shown, reason) for file, reason in unreadable.items())]
    if problems and bad_images == "error":
        raise UserError(check.describe([(found.name, found.reason) for found in problems], listing.top))
    train, test, validation = (
        _samples(files, unreadable, decoding, _place(listing, split)) for split, files in chosen.items()
    )
    return ImageData(
        listing.top.name, listing.top, classes, train, test, tuple(problems), validation,
        notes=listing.notes + ((f"{len(problems)} unusable files left out",) if problems else ()), held_back=held_back,
        remarks=remarks,
    )  # fmt: skip


def _place(listing: Listing, split: str) -> str:
    return dict(listing.places).get(split, str(listing.top))


def _classes(listing: Listing, root: Path) -> tuple[str, ...]:
    found = {
        split: {file.label for file in listing.files if file.split == split}
        for split in ("train", "validation", "test")
    }
    for split, other in (("train", "test"), ("test", "train"), ("validation", "train")):
        alone = sorted(found[split] - found[other])
        if alone and found[other]:
            raise UserError(
                f"Class {and_so_on(alone)} is in {_place(listing, split)} but not in {_place(listing, other)}, "
                f"which has {and_so_on(sorted(found[other]))}. Both need the same classes."
            )
    classes = tuple(sorted({file.label for file in listing.files}))
    if len(classes) < 2:
        raise UserError(
            f"{root} has only one class, {classes[0]}; telling classes apart takes at least two."
            if classes
            else f"{root} has no image that can be used.\n"
            + check.describe([(found.name, found.reason) for found in listing.problems], listing.top)
        )
    return classes


def _by_class(listing: Listing, split: str, classes: Sequence[str]) -> list[list[File]]:
    per_class: dict[str, list[File]] = {label: [] for label in classes}
    for file in listing.files:
        if file.split == split:
            per_class[file.label].append(file)
    return [sorted(files, key=lambda file: file.name) for files in per_class.values()]


def _limited(per_class: list[list[File]], limit: int | None, split: str) -> list[list[File]]:
    if limit is None:
        return per_class
    if limit < len(per_class):
        raise UserError(
            f"--{split}-limit {limit} is too small: there are {len(per_class)} classes, each needs an image."
        )
    counts = [0] * len(per_class)
    left = min(limit, sum(map(len, per_class)))
    while left:
        for label, files in enumerate(per_class):
            if left and counts[label] < len(files):
                counts[label] += 1
                left -= 1
    pairs = zip(per_class, counts, strict=True)
    return [[files[i * len(files) // count] for i in range(count)] for files, count in pairs]


def _samples(
    per_class: list[list[File]], unreadable: dict[File, str], decoding: Decoding, place: str
) -> tuple[Sample, ...]:
    samples: list[Sample] = []
    for label, files in enumerate(per_class):
        good = [
            Sample(file.path, label, file.name, _mark(file.path), decoding) for file in files if file not in unreadable
        ]
        if files and not good:
            raise UserError(f"No image of {place}/{files[0].label} is readable, so the class would be empty.")
        samples += good
    return tuple(samples)


def _mark(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
