"""Read class folders to labelled samples, and find every unreadable image before training begins."""

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

from PIL import Image

from common.data import check
from common.data.formats import IMAGE_SUFFIXES
from common.data.images import USUAL, Decoding, open_rgb
from common.system.errors import UserError

BadImages = Literal["error", "skip", "load"]
SPLITS = ("train", "test")
LAYOUT = "train/<class>/ and test/<class>/ with the same class names in both, at least two, and images inside"

_NEVER_DATA = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Sample:
    """One image: its file, its class index, and its name, a posix path under the root ("test/hotdog/0001.jpg")."""

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
class Skipped:
    """A file that was left out, and the reason."""

    name: str
    reason: str


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
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the names and byte sizes of the samples.

        It is equal for equal copies anywhere on disk, however many of the training images are held back.
        """
        digest = hashlib.sha256()
        train = sorted((*self.train, *self.validation), key=lambda sample: (sample.label, sample.name))
        for sample in (*train, *self.test):
            digest.update(f"{sample.name}\0{sample.path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class _File:
    path: Path
    name: str


def read_folder(
    root: str | os.PathLike[str],
    *,
    bad_images: BadImages = "error",
    train_limit: int | None = None,
    test_limit: int | None = None,
    progress: bool = True,
    short_side: int | None = None,
    decoding: Decoding = USUAL,
) -> ImageData:
    """Read `train/<class>/...` and `test/<class>/...` under a folder, and decode every image that is used once.

    Classes are sorted by name (hotdog = 0, not-hotdog = 1); images may lie in deeper folders.

    Args:
        root: The folder, or one that holds the data set as its only folder with both splits.
        bad_images: With "error", unreadable images and files that are no images raise. With "skip" they are left out
            and listed in `skipped`, so a limited split may come out that much smaller. "load" does the same, but reads
            JPEGs that lack their end as far as they go.
        train_limit: Most training images over all classes, shared evenly between them and spread evenly through each
            sorted list; None for all.
        test_limit: The same for the test images.
        progress: Whether a progress bar may be shown.
        short_side: The short side in pixels to which larger images will be reduced, which makes decoding them faster;
            None for images as they are.
        decoding: How files are read; `bad_images` says of it whether files that lack their end are.

    Returns:
        The data set, without validation images.

    Raises:
        UserError: The root is missing, the layout is another, a class is empty or in one split only, a limit is smaller
            than the number of classes, or files cannot be used and `bad_images` is "error".
    """
    if bad_images not in get_args(BadImages):
        raise UserError(f"--bad-images is {bad_images!r}; it can be error, skip or load.")
    decoding = replace(decoding, load_truncated=bad_images == "load")
    top = _find_splits(Path(root))
    classes = _classes(top)
    limits = {"train": train_limit, "test": test_limit}
    chosen: dict[str, list[list[_File]]] = {}
    problems: list[Skipped] = []
    for split in SPLITS:
        problems += _strays(top, split)
        listed = [_list_class(top, split, name) for name in classes]
        problems += [other for _, others in listed for other in others]
        chosen[split] = _limited([images for images, _ in listed], limits[split], split)
    files = [file for split in SPLITS for found in chosen[split] for file in found]
    reasons, remarks = check.check([(file.path, file.name) for file in files], short_side, decoding, progress)
    unreadable = {file.name: reason for file, reason in zip(files, reasons, strict=True) if reason is not None}
    problems += [Skipped(name, reason) for name, reason in unreadable.items()]
    if problems and bad_images == "error":
        raise UserError(check.describe([(found.name, found.reason) for found in problems], top))
    samples = {split: _samples(chosen[split], unreadable, decoding, classes, top / split) for split in SPLITS}
    return ImageData(top.name, top, classes, samples["train"], samples["test"], tuple(problems), remarks=remarks)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _NEVER_DATA]
    except OSError as error:
        raise UserError(f"Can't read the folder {folder}: {error.strerror or error}.") from error
    return sorted(found, key=lambda entry: entry.name)


def _subfolders(folder: Path) -> list[str]:
    return [entry.name for entry in _visible(folder) if _is_folder(entry)]


def _find_splits(root: Path) -> Path:
    if not root.exists():
        raise UserError(f"There is no folder {root}. Give --data the path of a folder with {LAYOUT}.")
    if not root.is_dir():
        raise UserError(f"{root} is a file, not a folder. Give --data the path of a folder with {LAYOUT}.")
    if all((root / split).is_dir() for split in SPLITS):
        return root
    folders = _subfolders(root)
    inner = [name for name in folders if all((root / name / split).is_dir() for split in SPLITS)]
    if len(inner) == 1:
        return root / inner[0]
    if inner:
        raise UserError(f"{root} holds several data sets ({_and_so_on(inner)}). Give --data the path of one of them.")
    missing = [split for split in SPLITS if split not in folders]
    contents = _and_so_on([entry.name + "/" * _is_folder(entry) for entry in _visible(root)]) or "nothing"
    raise UserError(f"{root} has no {' and no '.join(missing)} folder; found: {contents}. The layout is {LAYOUT}.")


def _classes(top: Path) -> tuple[str, ...]:
    found = {split: set(_subfolders(top / split)) for split in SPLITS}
    for split, other in (("train", "test"), ("test", "train")):
        if not found[split]:
            loose = sum(_is_image(entry.name) for entry in _visible(top / split))
            beside = f" ({loose} images lie directly in it)" if loose else ""
            raise UserError(f"{top / split} has no class folders{beside}. The layout is {LAYOUT}.")
        if found[other] and (alone := sorted(found[split] - found[other])):
            raise UserError(
                f"Class {_and_so_on(alone)} is in {top / split} but not in {top / other}, "
                f"which has {_and_so_on(sorted(found[other]))}. Both need the same class folders."
            )
    classes = tuple(sorted(found["train"]))
    if len(classes) < 2:
        raise UserError(f"{top} has only one class, {classes[0]}; telling classes apart takes at least two folders.")
    return classes


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _strays(top: Path, split: str) -> list[Skipped]:
    names = [entry.name for entry in _visible(top / split) if not _is_folder(entry) and _is_image(entry.name)]
    return [Skipped(f"{split}/{name}", "lies beside the class folders, so it has no class") for name in names]


def _list_class(top: Path, split: str, name: str) -> tuple[list[_File], list[Skipped]]:
    images: list[_File] = []
    others: list[Skipped] = []
    # Reading a link to a folder above would label every other class's images as this one.
    seen = {str(above) for above in Path(os.path.realpath(top / split / name)).parents}
    waiting = [top / split / name]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        for entry in _visible(folder):
            path = folder / entry.name
            shown = path.relative_to(top).as_posix()
            if _is_folder(entry):
                waiting.append(path)
            elif _is_image(entry.name):
                images.append(_File(path, shown))
            else:
                others.append(Skipped(shown, "not an image by its name"))
    if not images:
        raise UserError(
            f"Class folder {top / split / name} holds no images; known are {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return sorted(images, key=lambda file: file.name), sorted(others, key=lambda other: other.name)


def _limited(per_class: list[list[_File]], limit: int | None, split: str) -> list[list[_File]]:
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
    per_class: list[list[_File]], unreadable: dict[str, str], decoding: Decoding, classes: tuple[str, ...], folder: Path
) -> tuple[Sample, ...]:
    samples: list[Sample] = []
    for label, files in enumerate(per_class):
        good = [
            Sample(file.path, label, file.name, _mark(file.path), decoding)
            for file in files
            if file.name not in unreadable
        ]
        if not good:
            raise UserError(f"No image of {folder / classes[label]} is readable, so the class would be empty.")
        samples += good
    return tuple(samples)


def _mark(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _and_so_on(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
