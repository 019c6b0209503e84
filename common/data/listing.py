"""Look into folders: what counts as an image, what is never data, and what may not be opened."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.data.images import IMAGE_SUFFIXES
from common.system.errors import UserError

# What operating systems, network disks and notebooks leave in folders, in lower case; names with a dot are hidden.
NEVER_DATA = frozenset({
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "#snapshot", "$recycle.bin",
    "system volume information", "lost+found",
})  # fmt: skip


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class File:
    """An image of a data set, before anybody has looked into it."""

    path: Path
    shown: str
    """Its path below the folder of the data, for messages and records."""
    label: str
    """The name of its class."""
    place: str
    """Its path below the folder of its class, or below the folder of the data where no folder has the class's name."""
    split: str = ""
    """`train`, `validation` or `test`; empty where the data does not say."""

    @property
    def name(self) -> str:
        """The name of the sample: the same for the same images as folders, as a zip and as a table."""
        return "/".join(part for part in (self.split, self.label, self.place) if part)


@dataclass(frozen=True)
class Listing:
    """The images of a data set and how it is laid out."""

    top: Path
    files: tuple[File, ...]
    problems: tuple[Skipped, ...] = ()
    """Files that cannot be used."""
    places: tuple[tuple[str, str], ...] = ()
    """Each split, and where it is, for messages."""
    notes: tuple[str, ...] = ()
    """What a person should know about how the data was understood."""


def same_form(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which two spellings of one name are equal."""
    return unicodedata.normalize("NFC", name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds, sorted by name, without hidden entries and NEVER_DATA.

    Args:
        folder: The folder.

    Returns:
        Its entries.

    Raises:
        UserError: The folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in NEVER_DATA]
    except OSError as error:
        raise UserError(f"Can't read the folder {folder}: {error.strerror or error}.") from error
    return sorted(found, key=lambda entry: entry.name)


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    return [entry.name for entry in visible(folder) if is_folder(entry)]


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def loose_images(folder: Path) -> list[str]:
    """Return the names of the images that lie directly in a folder, sorted."""
    return [entry.name for entry in visible(folder) if not is_folder(entry) and is_image(entry.name)]


def holds_images(folder: Path) -> bool:
    """Return whether there is an image anywhere in a folder; a link that leads in a circle ends the search."""
    seen, waiting = set(), [folder]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        for entry in visible(current):
            if is_folder(entry):
                waiting.append(current / entry.name)
            elif is_image(entry.name):
                return True
    return False


def fault(path: Path) -> str | None:
    """Return why a file may not be opened, None if it may; pipes and devices would block, or never end."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None if stat.S_ISREG(mode) else "not a regular file"


def list_class(folder: Path, top: Path, split: str, label: str) -> tuple[list[File], list[Skipped]]:
    """List the images of one class, in deeper folders too.

    Args:
        folder: The folder of the class.
        top: The folder of the data.
        split: The split of the images, empty for none.
        label: The name of the class.

    Returns:
        The images, and the files that are none.
    """
    images: list[File] = []
    others: list[Skipped] = []
    # Reading a link to a folder above would label every other class's images as this one.
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        for entry in visible(current):
            path = current / entry.name
            shown = path.relative_to(top).as_posix()
            if is_folder(entry):
                waiting.append(path)
            elif not is_image(entry.name):
                others.append(Skipped(shown, "not an image by its name"))
            elif reason := fault(path):
                others.append(Skipped(shown, reason))
            else:
                images.append(File(path, shown, label, same_form(path.relative_to(folder).as_posix()), split))
    return images, sorted(others, key=lambda other: other.name)


def and_so_on(names: Sequence[str]) -> str:
    """Return the first ten of some names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
