"""Read tables of files and labels: .csv, .tsv and .jsonl, with Hugging Face's metadata.csv and metadata.jsonl."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from common.data.listing import File, Listing, Skipped, and_so_on, fault, is_image, same_form, subfolders
from common.system.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl")
# Names of columns, the first that a table has is taken.
FILE_COLUMNS = ("file_name", "filename", "file", "path", "filepath", "file_path", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
SPLIT_COLUMNS = ("split", "subset", "partition")
# What folders and the column of splits may call each split, in lower case.
SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
MAX_LISTED = 20

Row = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class _Columns:
    """The columns of a table that are read."""

    file: str
    label: str
    split: str | None

    @property
    def words(self) -> str:
        """Their names, for the line that says what was understood."""
        return ", ".join(name for name in (self.file, self.label, self.split) if name)


@dataclass(frozen=True)
class _Entry:
    """A line of a table: its number, file as written, label and split (empty where it has none)."""

    line: int
    file: str
    label: str
    split: str


def is_metadata(name: str) -> bool:
    """Return whether a file is what Hugging Face calls the table in a folder of images."""
    return name.lower() in ("metadata.csv", "metadata.jsonl")


def has_labels(path: Path) -> bool:
    """Return whether a table has a column of files and one of labels; False where it cannot be read."""
    try:
        _, first = next(_rows(path))
        return _columns(list(first), path) is not None
    except (StopIteration, UserError):
        return False


def read(path: Path, split: str = "", top: Path | None = None, anywhere: bool = False) -> Listing:
    """Read a table and list its images.

    Args:
        path: The table. File names in it are relative to its folder, or to the only folder beside it.
        split: The split of all its images; empty where the table may say it.
        top: The folder of the data, for messages; None for that of the table.
        anywhere: Whether files may lie outside the table's folder, as a table may that the user has named.

    Returns:
        The images, with missing ones and those that are none among the problems.

    Raises:
        UserError: The table is empty, damaged or lacks a column, or lines of it lack a value or contradict each other.
    """
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"The table {path} is empty: it has no line with a file and a label.")
    columns = _columns(list(rows[0][1]), path)
    if columns is None:
        raise UserError(_explain_columns(list(rows[0][1]), path))
    entries, repeated = _without_repeats(_entries(rows, columns, path), path)
    entries, places = _with_splits(entries, split, path)
    top = top or path.parent
    files, problems = _files(entries, path.parent, top, anywhere, path)
    notes = [f"table {path.name} ({columns.words})"]
    if repeated:
        notes.append(f"{repeated} line{'s' * (repeated > 1)} repeated")
    return Listing(top, tuple(files), tuple(problems), tuple(places.items()), tuple(notes))


def _rows(path: Path) -> Iterator[Row]:
    """Yield the number and the values of each line of a table."""
    if reason := fault(path):
        raise UserError(f"The table {path} can't be read: {reason}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"The table {path} is not UTF-8 (byte {error.start}). Save it again as UTF-8.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"The table {path} can't be read: {getattr(error, 'strerror', None) or error}.") from error
    yield from (_json_rows if path.suffix.lower() == ".jsonl" else _csv_rows)(text, path)


def _json_rows(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"Line {number} of the table {path} is no JSON: {error}.") from error
        if not isinstance(value, dict):
            raise UserError(f'Line {number} of the table {path} is no JSON object such as {{"file_name": ...}}.')
        yield number, value


def _csv_rows(text: str, path: Path) -> Iterator[Row]:
    first = text.lstrip("\r\n").split("\n", 1)[0]
    # Spreadsheets write semicolons where the decimal sign is a comma.
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header):
                    raise UserError(f"The table {path} names a column twice: {', '.join(header)}.")
            elif len(cells) != len(header):
                raise UserError(
                    f"Line {reader.line_num} of the table {path} has {len(cells)} values, its first line names "
                    f"{len(header)} columns."
                )
            else:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"Line {reader.line_num} of the table {path} is damaged: {error}.") from error


def _columns(names: Sequence[str], path: Path) -> _Columns | None:
    """Choose the columns of a table, None where it lacks one."""
    found = {name.lower(): name for name in reversed(names)}
    file, label, split = (
        next((found[name] for name in known if name in found), None)
        for known in (FILE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    )
    return None if file is None or label is None else _Columns(file, label, split)


def _explain_columns(names: Sequence[str], path: Path) -> str:
    return (
        f"The table {path} needs a column of files ({', '.join(FILE_COLUMNS)}) and one of labels "
        f"({', '.join(LABEL_COLUMNS)}), and may have one of splits ({', '.join(SPLIT_COLUMNS)}); its first line has: "
        f"{and_so_on([name or '(no name)' for name in names])}."
    )


def _entries(rows: Sequence[Row], columns: _Columns, path: Path) -> list[_Entry]:
    """Return what the lines say; UserError lists those that lack something."""
    entries: list[_Entry] = []
    faults: list[str] = []
    for line, row in rows:
        file, label, split = (
            _text(row.get(name)) if name else "" for name in (columns.file, columns.label, columns.split)
        )
        for name, value in ((columns.file, file), (columns.label, label), (columns.split or "", split)):
            if value is None or (value == "" and name in (columns.file, columns.label)):
                faults.append(f"line {line}: {name} is {'missing' if not row.get(name) else repr(row[name])}")
        if split and split.lower() not in SPLITS:
            faults.append(f"line {line}: the split {split!r} is none of {', '.join(SPLITS)}")
        if label in (".", ".."):
            faults.append(f"line {line}: {label!r} is no name of a class")
        entries.append(_Entry(line, file or "", same_form(label or ""), SPLITS.get((split or "").lower(), "")))
    _raise(faults, path)
    return entries


def _text(value: Any) -> str | None:
    """Return a value as text; None where it is a list, an object, or text that is not Unicode."""
    if value is None:
        return ""
    if not isinstance(value, str | int | float | bool):
        return None
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def _raise(faults: Sequence[str], path: Path) -> None:
    if faults:
        more = [f"... and {len(faults) - MAX_LISTED} more"] if len(faults) > MAX_LISTED else []
        lines = [f"  {text}" for text in [*faults[:MAX_LISTED], *more]]
        raise UserError("\n".join([f"The table {path} can't be used:", *lines]))


def _without_repeats(entries: Sequence[_Entry], path: Path) -> tuple[list[_Entry], int]:
    """Return the entries without repetitions, and how many these were; UserError where two contradict each other."""
    first: dict[str, _Entry] = {}
    faults: list[str] = []
    for entry in entries:
        other = first.setdefault(os.path.normpath(entry.file), entry)
        for what, one, two in (("labels", other.label, entry.label), ("splits", other.split, entry.split)):
            if one != two:
                faults.append(f"lines {other.line} and {entry.line}: {entry.file} has two {what}, {one!r} and {two!r}")
    _raise(faults, path)
    return list(first.values()), len(entries) - len(first)


def _with_splits(entries: list[_Entry], split: str, path: Path) -> tuple[list[_Entry], dict[str, str]]:
    """Return the entries with their splits, and the place of each split for messages."""
    if split:
        other = sorted({entry.split for entry in entries} - {"", split})
        if other:
            raise UserError(f"The table {path} is for {split} images, but has lines of the split {', '.join(other)}.")
        return [replace(entry, split=split) for entry in entries], {split: str(path)}
    if not any(entry.split for entry in entries):
        # Hugging Face's table above folders: the first folder of a file says its split.
        firsts = [SPLITS.get(entry.file.replace("\\", "/").split("/")[0].lower(), "") for entry in entries]
        if not all(firsts) or "train" not in firsts or len(set(firsts)) == 1:
            return entries, {}
        entries = [replace(entry, split=first) for entry, first in zip(entries, firsts, strict=True)]
    _raise([f"line {entry.line}: the split is missing" for entry in entries if not entry.split], path)
    found = {entry.split for entry in entries}
    if found == {"train"}:
        return [replace(entry, split="") for entry in entries], {}
    if "train" not in found:
        raise UserError(f"The table {path} has no training images; its splits are {', '.join(sorted(found))}.")
    return entries, {name: f"the {name} images of {path}" for name in ("train", "validation", "test") if name in found}


def _files(
    entries: Sequence[_Entry], folder: Path, top: Path, anywhere: bool, path: Path
) -> tuple[list[File], list[Skipped]]:
    """Return the images of a table's entries, and those that cannot be used."""
    find = _finder(entries, folder)
    paths = [find(entry.file) for entry in entries]
    outside = [_is_outside(found, folder) for found in paths]
    if not anywhere:
        lines = [(entry, out) for entry, out in zip(entries, outside, strict=True) if out]
        _raise([f"line {entry.line}: {entry.file} lies outside {folder}" for entry, _ in lines], path)
    base = Path(os.path.commonpath([found.parent.absolute() for found in paths])) if any(outside) else folder.absolute()
    files: list[File] = []
    problems: list[Skipped] = []
    for entry, found in zip(entries, paths, strict=True):
        reason = fault(found) or (None if is_image(found.name) else "not an image by its name")
        if reason:
            problems.append(Skipped(entry.file, reason))
            continue
        place = PurePosixPath(os.path.relpath(found.absolute(), base))
        files.append(File(found, entry.file, entry.label, _below_class(place, entry), entry.split))
    return files, problems


def _finder(entries: Sequence[_Entry], folder: Path) -> Callable[[str], Path]:
    """Return how to find a file that a table names: beside the table, or in the only folder beside it."""

    def written(name: str) -> str:
        return name if "\\" not in name or fault(folder / name) is None else name.replace("\\", "/")

    if not any(fault(folder / written(entry.file)) is None for entry in entries):
        below = subfolders(folder)
        if len(below) == 1 and any(fault(folder / below[0] / written(entry.file)) is None for entry in entries):
            return lambda name: folder / below[0] / written(name)
    return lambda name: folder / written(name)


def _is_outside(path: Path, folder: Path) -> bool:
    """Return whether a path leads out of a folder by its parts; links inside of the folder may lead anywhere."""
    return not Path(os.path.normpath(path.absolute())).is_relative_to(os.path.normpath(folder.absolute()))


def _below_class(place: PurePosixPath, entry: _Entry) -> str:
    """Return the path of a file below the folder of its class, or without the folder of its split."""
    parts = [same_form(part) for part in place.parts]
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == entry.label:
            return "/".join(parts[index + 1 :])
    if entry.split and len(parts) > 1 and SPLITS.get(parts[0].lower()) == entry.split:
        parts = parts[1:]
    return "/".join(parts)
