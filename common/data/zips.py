"""Unpack a zip that somebody else made: nothing outside its folder, no links, no bomb."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from common.system.errors import UserError

MAX_UNPACKED = 20 * 1024**3
"""Bytes: a zip that would unpack to more is refused."""

MAX_RATIO = 200
"""A zip that grows by more than this factor is refused; photographs hardly grow at all."""

RATIO_FREE = 100 * 1024**2
"""Bytes: below this unpacked size the factor doesn't matter."""


def unpack(archive: Path, folder: Path) -> None:
    """Write every file of a zip under a folder.

    Args:
        archive: The zip.
        folder: An empty folder.

    Raises:
        UserError: The zip is unsafe or damaged, or has two entries for one file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            places = [_safe_place(member, archive) for member in members]
            _refuse_bomb(members, archive)
            for member, place in zip(members, places, strict=True):
                target = folder / place
                if member.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                # "x": two members of one name, or of one name on a disk that ignores case, must not hide one another.
                with opened.open(member) as source, open(target, "xb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive} is no zip, or a damaged one ({error}). Get it again, or unpack it yourself."
        ) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = Path(error.filename).relative_to(folder)
        raise UserError(
            f"{archive} holds two entries for {name}. Unpack it yourself and give --data the folder."
        ) from error


def _safe_place(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    name = member.filename.replace("\\", "/")
    place = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if place.is_absolute() or ".." in place.parts or re.match(r"[A-Za-z]:", name) or not place.parts:
        fault = "would be written outside the data folder"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "is a link or device, not a file"
    elif member.flag_bits & 0x1:
        fault = "is encrypted"
    else:
        return place
    raise UserError(f"{archive} is refused: its entry {member.filename!r} {fault}. Nothing was unpacked.")


def _refuse_bomb(members: list[zipfile.ZipInfo], archive: Path) -> None:
    size = sum(member.file_size for member in members)
    ratio = size / max(1, archive.stat().st_size)
    if size > MAX_UNPACKED:
        fault = f"it would unpack to {size:,} bytes, more than the {MAX_UNPACKED:,} allowed"
    elif size > RATIO_FREE and ratio > MAX_RATIO:
        fault = f"it would grow {ratio:,.0f} times to {size:,} bytes, as no photographs do"
    else:
        return
    raise UserError(f"{archive} is refused: {fault}. Nothing was unpacked.")
