"""Unpack a zip that somebody else made: nothing outside its folder, no links, no bomb, no nonsense as names."""

from __future__ import annotations

import codecs
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


# In zips without the mark that names are UTF-8; what old DOS programs wrote, and how Python reads all others.
_UNMARKED = "cp437"
_UTF_8_FLAG = 0x800
# Encodings of file names that people meet most, tried on the names of a zip to show how they would read.
_SUGGESTED = ("gbk", "shift_jis", "euc_kr", "big5", "cp866", "cp437", "cp1252")


def name_encoding(archive: Path, wanted: str | None) -> str | None:
    """Find out how the names in a zip are encoded where the zip does not say that they are UTF-8.

    Args:
        archive: The zip.
        wanted: The encoding that the user named, None for none.

    Returns:
        The name of the encoding; None where the zip says it, or all names are ASCII.

    Raises:
        UserError: The names are not UTF-8 and `wanted` is None or no encoding of theirs, or the zip is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise UserError(_damaged(archive, error)) from error
    names = [m.orig_filename.encode(_UNMARKED) for m in members if not m.flag_bits & _UTF_8_FLAG]
    unmarked = [name for name in names if not name.isascii()]
    if not unmarked:
        return None
    if wanted is None and all(_decoded(name, "utf-8") is not None for name in unmarked):
        return "utf-8"
    if wanted is not None and all(_decoded(name, wanted) is not None for name in unmarked):
        return wanted
    readings = [(encoding, _decoded(unmarked[0], encoding)) for encoding in _SUGGESTED]
    lines = [f"  --zip-encoding {encoding}: {text}" for encoding, text in readings if text is not None]
    fault = "do not say how they are encoded, and are not UTF-8" if wanted is None else f"are not {wanted}"
    raise UserError("\n".join([f"{archive} holds names that {fault}. The first would read, with", *lines]))


def _decoded(name: bytes, encoding: str) -> str | None:
    try:
        return name.decode(encoding)
    except UnicodeDecodeError:
        return None


def check_encoding(name: str) -> str:
    """Return Python's name for an encoding of text; raises UserError where there is none of that name."""
    try:
        found = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise UserError(f"--zip-encoding {name}: no such encoding; there are gbk, shift_jis, cp437, ...") from error
    return found.name


def unpack(archive: Path, folder: Path, encoding: str | None = None) -> None:
    """Write every file of a zip under a folder.

    Args:
        archive: The zip.
        folder: An empty folder.
        encoding: That of names that are not marked as UTF-8, as `name_encoding` gives it.

    Raises:
        UserError: The zip is unsafe or damaged, or has two entries for one file.
    """
    try:
        with zipfile.ZipFile(archive, metadata_encoding=encoding) as opened:
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
        raise UserError(_damaged(archive, error)) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = Path(error.filename).relative_to(folder)
        raise UserError(
            f"{archive} holds two entries for {name}. Unpack it yourself and give --data the folder."
        ) from error


def _damaged(archive: Path, error: Exception) -> str:
    return f"{archive} is no zip, or a damaged one ({error}). Get it again, or unpack it yourself."


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
