"""Choose what of a data set to keep, and write it as a table or as a folder of links. Nothing is deleted."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from common.audit.duplicates import Group
from common.audit.findings import Audit
from common.audit.pictures import Picture
from common.system.errors import UserError
from common.system.files import check_place, write_atomically

COLUMNS = ("file_name", "label", "split")
# Whoever names such a file does not want a folder of that name.
OTHER_FORMS = (".tsv", ".json", ".jsonl", ".txt", ".xlsx", ".parquet", ".zip", ".html")
# Of pictures that show the same, one in the split that comes first here is kept.
KEPT_FIRST = ("test", "validation", "train", "")


class Kept(NamedTuple):
    """What to keep, and why the rest is left out."""

    pictures: list[Picture]
    left_out: dict[str, str]
    """Name of a picture -> the reason."""


def choose(audit: Audit) -> Kept:
    """Choose the pictures to keep.

    Of pictures that show the same and have one label, one is kept: from the test set if one is there, so that no test
    picture is trained on, and the largest. Of those whose labels contradict each other none is kept. Pictures outside
    the test set whose labels are likely wrong are left out; in it they stay, since a test set without the pictures that
    a network finds hard would flatter every network.

    Args:
        audit: The findings.

    Returns:
        The pictures to keep, in their order, and the reasons for the others.
    """
    left_out: dict[int, str] = {}
    for group in audit.groups:
        left_out |= _left_out_of(audit, group)
    for suspect in audit.suspects:
        if audit.pictures[suspect.index].split != "test":
            suggested = audit.data.classes[suspect.suggested]
            left_out.setdefault(suspect.index, f"likely {suggested!r}, not {audit.class_of(suspect.index)!r}")
    kept = [picture for index, picture in enumerate(audit.pictures) if index not in left_out]
    return Kept(kept, {audit.pictures[index].name: reason for index, reason in sorted(left_out.items())})


def _left_out_of(audit: Audit, group: Group) -> dict[int, str]:
    """Return the pictures of a group that are left out, and why."""
    if audit.labels_differ(group):
        return dict.fromkeys(group.members, "the same picture has another label, too")
    pictures = audit.pictures

    def rank(index: int) -> tuple[int, int, str]:
        picture = pictures[index]
        return KEPT_FIRST.index(picture.split), -picture.width * picture.height, picture.name

    best = min(group.members, key=rank)
    return {index: f"the same picture as {pictures[best].name}" for index in group.members if index != best}


def check_target(target: Path) -> None:
    """Check that a table or folder may be written there, before the work begins.

    Args:
        target: A file that ends in .csv, or a folder.

    Raises:
        UserError: There is something already, or the place cannot be written to.
    """
    if target.is_symlink() or target.exists():
        raise UserError(f"--write-clean {target}: it exists already, and nothing is overwritten; choose another name")
    if target.suffix.lower() in OTHER_FORMS:
        raise UserError(f"--write-clean {target}: a table is written as .csv, anything else as a folder of links")
    check_place("--write-clean", target)


def write(audit: Audit, kept: Kept, target: Path) -> None:
    """Write what to keep.

    Args:
        audit: The findings.
        kept: The pictures to keep.
        target: A file that ends in .csv gets the table: file name, label and split of each picture, the names relative
            to the table's folder. Anything else becomes a folder of links in the layout that `--data` reads:
            <split>/<class>/<picture>, or <class>/<picture> where the data has no split.

    Raises:
        UserError: A class would lose all its pictures of a split, a name does not fit the form, or the target cannot be
            written.
    """
    for split in audit.splits:
        counts = Counter(picture.sample.label for picture in kept.pictures if picture.split == split)
        for label, name in enumerate(audit.data.classes):
            if not counts[label]:
                raise UserError(
                    f"--write-clean {target}: nothing was written, as {name!r} would have no picture left"
                    + f" in {split}" * bool(split)
                )
    try:
        if target.suffix.lower() == ".csv":
            write_atomically(target, table(audit, kept, target.parent).encode("utf-8"))
        else:
            _write_links(audit, kept, target)
    except UnicodeEncodeError as error:
        raise UserError(f"--write-clean {target}: a file name is not UTF-8; a folder of links can hold it") from error
    except OSError as error:
        raise UserError(f"--write-clean {target}: cannot be written: {error.strerror or error}") from error


def table(audit: Audit, kept: Kept, folder: Path) -> str:
    """Return the table of the kept pictures, with file names relative to `folder`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for picture in kept.pictures:
        # Resolved, since ".." of a folder that is a link does not lead back.
        name = os.path.relpath(os.path.abspath(picture.sample.path), os.path.realpath(folder))
        writer.writerow((Path(name).as_posix(), audit.data.classes[picture.sample.label], picture.split))
    return stream.getvalue()


def _write_links(audit: Audit, kept: Kept, target: Path) -> None:
    """Write a folder of links; it appears under its name once it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True
    ) as drafts:
        draft = Path(drafts, "links")
        for picture in kept.pictures:
            link = draft / place(picture, audit.data.classes[picture.sample.label])
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.abspath(picture.sample.path))
        os.rename(draft, target)


def place(picture: Picture, label: str) -> Path:
    """Return where the link to a picture lies: its split, its class, and what its name has beyond these.

    Raises:
        UserError: The class is no name of a folder.
    """
    if "/" in label or label in ("", ".", ".."):
        raise UserError(f"--write-clean: the class {label!r} is no name of a folder; a table (FILE.csv) can hold it")
    rest = picture.name
    for part in (picture.split, label):
        rest = rest.removeprefix(f"{part}/") if part else rest
    # One name a picture, without folders of its own: a deeper folder could be taken for a class.
    return Path(*filter(None, (picture.split, label)), rest.replace("/", "__"))
