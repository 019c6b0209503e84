"""Make image files readable whose pixels are there although something else about them is damaged."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_END_OF_JPEG = b"\xff\xd9"
# Ancillary chunks of a PNG that the pixels depend on: transparency, and the frames of an animation.
_USED = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})
_ORIENTATION = b"eXIf"


@dataclass(frozen=True)
class Mended:
    """The content of a file that can be read in its place."""

    content: bytes
    ignored: tuple[str, ...] = ()
    """Names of the chunks of a PNG that were left out."""
    cut_short: bool = False
    """Whether the file is a JPEG that lacks its end."""


def mend(path: str | os.PathLike[str], load_truncated: bool) -> Mended | None:
    """Return a copy of a file that could not be read, without what is not needed and with what is missing.

    Of a PNG, chunks are left out that no pixel depends on, such as text and colour profiles. A JPEG gets the mark of
    its end; libjpeg makes the pixels that are missing grey.

    Args:
        path: The file.
        load_truncated: Whether to read a JPEG that lacks its end.

    Returns:
        The copy, or None where there is nothing to mend.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(len(_PNG))
        if start == _PNG:
            return _without_unused_chunks(file.read())
        if load_truncated and start.startswith(_JPEG):
            return Mended(start + file.read() + _END_OF_JPEG, cut_short=True)
    return None


def _without_unused_chunks(content: bytes) -> Mended | None:
    """Leave out what no pixel of a PNG depends on; `content` begins after the signature."""
    kept, ignored = [_PNG], []
    for name, chunk in _chunks(content):
        critical = not name[:1].islower()
        if critical or name in _USED or name == _ORIENTATION and _checksum_is_right(chunk):
            kept.append(chunk)
        else:
            ignored.append(name.decode("latin-1"))
    return Mended(b"".join(kept), tuple(dict.fromkeys(ignored))) if ignored else None


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and whole bytes of each chunk; what is left of the last one where the file is cut short."""
    place = 0
    while place + 8 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        yield content[place + 4 : place + 8], content[place:end]
        place = end


def _checksum_is_right(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
