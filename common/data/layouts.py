"""Understand a folder as people have it: splits, class folders, one folder around either, or pictures with a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.data import tables
from common.data.images import IMAGE_SUFFIXES
from common.data.listing import (
    File,
    Listing,
    Skipped,
    and_so_on,
    fault,
    holds_images,
    is_folder,
    list_class,
    loose_images,
    same_form,
    subfolders,
    visible,
)
from common.system.errors import UserError

LAYOUTS = (
    "--data takes train/<class>/ and test/<class>/ (with val/<class>/ too, or in the place of test), "
    "a folder for each class, or a table of files and labels (.csv, .tsv, .jsonl); docs/data.md shows each"
)
MAX_WRAPPERS = 3


@dataclass(frozen=True)
class _Folder:
    """What is in a folder, beside hidden files."""

    path: Path
    folders: tuple[str, ...]
    splits: tuple[tuple[str, str], ...]
    """Split and name of each folder that is called as one."""
    tables: tuple[str, ...]
    loose: int
    """Images that lie directly in it."""

    @property
    def has_splits(self) -> bool:
        """Whether it holds training images and a set to test or validate on."""
        found = {split for split, _ in self.splits}
        return "train" in found and len(found) > 1


def find(root: Path) -> Listing:
    """Find out how a folder is laid out, and list its images.

    Args:
        root: The folder of the data, or one that holds it with nothing beside it.

    Returns:
        The images with their classes and, where the data says so, their splits.

    Raises:
        UserError: There is no such folder, or it is laid out in no known way, or in two.
    """
    if not root.exists():
        raise UserError(f"There is no folder {root}. {LAYOUTS}.")
    if not root.is_dir():
        raise UserError(f"{root} is a file, not a folder. {LAYOUTS}.")
    top = root
    for _ in range(MAX_WRAPPERS + 1):
        folder = _look(top)
        if folder.has_splits:
            return _read_splits(folder)
        if (name := _table_of(folder)) is not None:
            return tables.read(top / name)
        inner = _inner(folder)
        if inner is None:
            break
        top = top / inner
    _check_classes(folder, root)
    return _read_classes(folder)


def _look(path: Path) -> _Folder:
    entries = visible(path)
    folders = tuple(entry.name for entry in entries if is_folder(entry))
    splits = tuple((tables.SPLITS[name.lower()], name) for name in folders if name.lower() in tables.SPLITS)
    found = tuple(e.name for e in entries if not is_folder(e) and Path(e.name).suffix.lower() in tables.SUFFIXES)
    return _Folder(path, folders, splits, found, len(loose_images(path)))


def _table_of(folder: _Folder) -> str | None:
    """Return the table that says what the pictures of a folder are, None where their folders say it."""
    for name in folder.tables:
        if tables.is_metadata(name) and tables.has_labels(folder.path / name):
            return name
    if len(folder.folders) > 1 or len(folder.tables) != 1:
        return None
    if folder.folders and not folder.loose:
        inner = folder.path / folder.folders[0]
        if len(subfolders(inner)) > 1 or not holds_images(inner):
            return None
    return folder.tables[0] if tables.has_labels(folder.path / folder.tables[0]) else None


def _inner(folder: _Folder) -> str | None:
    """Return the folder that holds the data, None where it is this one."""
    nested = [name for name in folder.folders if _look(folder.path / name).has_splits]
    if len(nested) == 1:
        return nested[0]
    if nested:
        _refuse_nested(folder, nested)
    train = [name for split, name in folder.splits if split == "train"]
    if len(train) == 1 and subfolders(folder.path / train[0]) and not loose_images(folder.path / train[0]):
        beside = [name for name in folder.folders if name != train[0] and holds_images(folder.path / name)]
        if beside:
            raise UserError(
                f"{folder.path} has no test folder; found: {_contents(folder.path)}. "
                f"To hold test images back from {train[0]}/ give --data {folder.path / train[0]}. {LAYOUTS}."
            )
        return train[0]
    alone = len(folder.folders) == 1 and not folder.loose and not folder.splits
    return folder.folders[0] if alone else None


def _refuse_nested(folder: _Folder, nested: Sequence[str]) -> None:
    parts = [folder.path / nested[0] / name for _, name in _look(folder.path / nested[0]).splits]
    if not any(subfolders(part) for part in parts):
        raise UserError(
            f"In {folder.path} each class ({and_so_on(nested)}) has folders for its splits. The split comes first: "
            "make it train/<class>/ and test/<class>/."
        )
    raise UserError(f"{folder.path} holds several data sets ({and_so_on(nested)}). Give --data the path of one.")


def _check_classes(folder: _Folder, root: Path) -> None:
    """Raise UserError where the folders in a folder cannot be its classes."""
    if not folder.folders and folder.loose and folder.path != root:
        name = same_form(folder.path.name)
        raise UserError(f"{root} has only one class, {name}; telling classes apart takes at least two folders.")
    if not folder.folders:
        loose = f"{folder.loose} images lie directly in it" if folder.loose else f"found: {_contents(folder.path)}"
        table = f" For the table beside them give --data {folder.path / folder.tables[0]}." if folder.tables else ""
        raise UserError(f"{folder.path} has no class folders ({loose}).{table} {LAYOUTS}.")
    for split, name in folder.splits:
        if split != "train" and subfolders(folder.path / name):
            raise UserError(f"{folder.path} has no train folder; found: {_contents(folder.path)}. {LAYOUTS}.")


def _contents(path: Path) -> str:
    return and_so_on([entry.name + "/" * is_folder(entry) for entry in visible(path)]) or "nothing"


def _read_splits(folder: _Folder) -> Listing:
    """List the images of a folder with train and test or validation folders."""
    places: dict[str, str] = {}
    for split, name in folder.splits:
        if split in places:
            other = Path(places[split]).name
            raise UserError(f"{folder.path} has two folders of {split} images, {other} and {name}. Leave one of them.")
        places[split] = str(folder.path / name)
    files: list[File] = []
    problems: list[Skipped] = []
    for split in sorted(places, key=["train", "validation", "test"].index):
        listing = _read_split(folder, split, Path(places[split]))
        if listing is None:
            return tables.read(folder.path / folder.tables[0])
        files += listing.files
        problems += listing.problems
    unread = [f"{name}/" for name in folder.folders if str(folder.path / name) not in places.values()]
    return Listing(folder.path, tuple(files), tuple(problems), tuple(places.items()), _not_read(unread))


def _read_split(folder: _Folder, split: str, place: Path) -> Listing | None:
    """List one split; None where only the table beside the splits can say what its pictures are."""
    inside = _look(place)
    for name in inside.tables:
        if tables.is_metadata(name) and tables.has_labels(place / name):
            return tables.read(place / name, split, folder.path)
    if inside.folders:
        return _read_classes(inside, split, folder.path)
    if len(folder.tables) == 1 and inside.loose and tables.has_labels(folder.path / folder.tables[0]):
        return None
    beside = f" ({inside.loose} images lie directly in it)" if inside.loose else ""
    raise UserError(f"{place} has no class folders{beside}. {LAYOUTS}.")


def _read_classes(folder: _Folder, split: str = "", top: Path | None = None) -> Listing:
    """List the images of class folders; folders whose names differ in Unicode form only are one class."""
    top = top or folder.path
    stray = "lies beside the class folders, so it has no class"
    loose = [(folder.path / name).relative_to(top).as_posix() for name in loose_images(folder.path)]
    files: list[File] = []
    problems = [Skipped(name, fault(top / name) or stray) for name in loose]
    counts: dict[str, int] = {}
    for name in folder.folders:
        found, others = list_class(folder.path / name, top, split, same_form(name))
        counts[same_form(name)] = counts.get(same_form(name), 0) + len(found)
        files += found
        problems += others
    for label, count in counts.items():
        if not count:
            raise UserError(
                f"Class folder {folder.path / label} holds no images; known are {', '.join(sorted(IMAGE_SUFFIXES))}."
            )
    return Listing(top, tuple(files), tuple(problems), notes=() if split else _not_read(folder.tables))


def _not_read(names: Sequence[str]) -> tuple[str, ...]:
    return (f"not read: {and_so_on(list(names))}",) if names else ()
