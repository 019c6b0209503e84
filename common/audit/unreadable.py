"""Say of what kind a file is that cannot be used as a picture."""

from __future__ import annotations

from pathlib import Path

from common.data.folder import Skipped
from common.data.images import IMAGE_SUFFIXES

CLASSLESS = "lies beside the class folders, so it has no class"
EMPTY = "an empty file"
ZEROS = "nothing but zeros, as a broken copy leaves"
OTHER_NAME = "no picture by its name"
# How files begin that people keep among their pictures: what such a file is, where the mark is, and the mark.
_SIGNATURES: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    ("a web page", 0, (b"<!doctype html", b"<html")),
    ("an SVG drawing", 0, (b"<svg", b"<?xml")),
    ("a pointer of Git LFS, not the file itself", 0, (b"version https://git-lfs",)),
    ("a PDF", 0, (b"%pdf",)),
    ("an archive", 0, (b"pk\x03\x04", b"\x1f\x8b", b"rar!", b"7z\xbc\xaf")),
    ("a HEIC photograph", 4, (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim", b"ftyphevc")),
    ("an AVIF picture", 4, (b"ftypavif", b"ftypavis")),
    ("a video", 4, (b"ftyp",)),
    ("a video", 0, (b"\x1a\x45\xdf\xa3",)),
    ("a video", 8, (b"avi ",)),
)
# Words of the reader's reason, and the kind that they mean.
_REASONS = (
    ("truncated", "cut short"),
    ("incomplete", "cut short"),
    ("broken data stream", "cut short"),
    ("unexpected end", "cut short"),
    ("pixels", "too many pixels"),
    ("fixed range", "values without a fixed range"),
    ("known format", "no format of pictures that is known"),
)


def kind_of(found: Skipped, root: Path) -> str:
    """Return what a file that was left out is, in words that many files share.

    Args:
        found: The file, and the reason that the reader gives.
        root: The folder of the data.

    Returns:
        The kind of the file, such as "empty file", "a web page" or "cut short".
    """
    if "class folders" in found.reason:
        return CLASSLESS
    path = root / found.name
    try:
        with open(path, "rb") as file:
            start = file.read(256)
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}"
    content = _content(start)
    if content is None and path.suffix.lower() not in IMAGE_SUFFIXES:
        return OTHER_NAME
    return content or next((kind for word, kind in _REASONS if word in found.reason.lower()), "damaged")


def _content(start: bytes) -> str | None:
    """Return what a file is by its first bytes, or None if they say nothing."""
    if not start:
        return EMPTY
    if not start.strip(b"\0"):
        return ZEROS
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n") if start[:1] in b"\xef \t\r\n" else start
    low = text.lower()
    return next((name for name, place, marks in _SIGNATURES if low[place:].startswith(marks)), None)
