"""Which image formats are read, and what a file is that is none of them."""

from __future__ import annotations

import ctypes
import importlib
import io
import os
import stat
from functools import cache
from importlib.util import find_spec

from PIL import Image, ImageFile, UnidentifiedImageError, features

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".jp2", ".bmp", ".gif", ".tif", ".tiff", ".tga",
    ".ppm", ".pgm", ".pbm", ".heic", ".heif", ".hif",
})  # fmt: skip
"""Endings of file names that count as images, in lower case."""

# Naming the formats keeps Pillow from starting Ghostscript for an EPS file that is called .jpg.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")

EMPTY = "an empty file"
ZEROS = "nothing but zeros, as a broken copy leaves"
HEIC = "a HEIC photograph"
AVIF = "an AVIF picture"
# How files begin that people keep among their pictures: what such a file is, where the mark is, and the mark.
_SIGNATURES: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    ("a web page", 0, (b"<!doctype html", b"<html")),
    ("an SVG drawing", 0, (b"<svg", b"<?xml")),
    ("a pointer of Git LFS, not the file itself", 0, (b"version https://git-lfs",)),
    ("a PDF", 0, (b"%pdf",)),
    ("an archive", 0, (b"pk\x03\x04", b"\x1f\x8b", b"rar!", b"7z\xbc\xaf")),
    (HEIC, 4, (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim", b"ftyphevc")),
    (AVIF, 4, (b"ftypavif", b"ftypavis")),
    ("a video", 4, (b"ftyp",)),
    ("a video", 0, (b"\x1a\x45\xdf\xa3",)),
    ("a video", 8, (b"avi ",)),
)
# How pictures begin that Pillow reads where they are whole and of a usual kind.
_PICTURES = (
    ("a JPEG", b"\xff\xd8\xff"),
    ("a PNG", b"\x89PNG"),
    ("a GIF", b"GIF8"),
    ("a TIFF", b"II*\0"),
    ("a TIFF", b"MM\0*"),
    ("a JPEG 2000", b"\0\0\0\x0cjP"),
    ("a WebP", b"RIFF"),
    ("a BMP", b"BM"),
)


def open_image(path: str | os.PathLike[str], content: bytes | None = None) -> ImageFile.ImageFile:
    """Open a picture by what it contains, whatever its name; nothing is decoded yet.

    Args:
        path: The file.
        content: What to read in its place; None for the file itself.

    Returns:
        Pillow's image, to be closed by the caller.

    Raises:
        UnidentifiedImageError: It is a picture in no format that is read.
        OSError: The file cannot be read, or is none: a folder, pipe, socket or device, which is not opened.
    """
    if content is None:
        check_regular(path)
    # Nothing marks the start of a TGA: Pillow takes many files for one.
    formats = (*_FORMATS, "TGA") if os.fspath(path).lower().endswith(".tga") else _FORMATS
    try:
        return Image.open(path if content is None else io.BytesIO(content), formats=formats)
    except UnidentifiedImageError:
        start = first_bytes(path) if content is None else content
        if content_of(start) != HEIC or not _heic_is_read():
            raise
        return Image.open(path if content is None else io.BytesIO(content), formats=("HEIF",))


@cache
def _heic_is_read() -> bool:
    """Return whether pillow-heif is installed; it is told to Pillow."""
    if find_spec("pillow_heif") is None:
        return False
    importlib.import_module("pillow_heif").register_heif_opener()
    return True


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError for a folder, and for a pipe, socket or device, which could keep a reader waiting for ever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError("a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file")


def first_bytes(path: str | os.PathLike[str], count: int = 256) -> bytes:
    """Return the first bytes of a file; OSError is raised as by `check_regular`."""
    check_regular(path)
    with open(path, "rb") as file:
        return file.read(count)


def content_of(start: bytes) -> str | None:
    """Return what a file is by its first bytes, or None if they say nothing or it is a picture of a usual format.

    >>> content_of(b"<!DOCTYPE html><html>"), content_of(b"GIF89a")
    ('a web page', None)
    """
    if not start:
        return EMPTY
    if not start.strip(b"\0"):
        return ZEROS
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n") if start[:1] in b"\xef \t\r\n" else start
    low = text.lower()
    return next((name for name, place, marks in _SIGNATURES if low[place:].startswith(marks)), None)


def unidentified(path: str | os.PathLike[str]) -> str:
    """Return what a file is in which Pillow finds no picture, and what mends it where something does."""
    start = first_bytes(path)
    content = content_of(start)
    if content == EMPTY:
        return EMPTY
    if content == HEIC and not _heic_is_read():
        return f"{HEIC}; to read these, run: pip install pillow-heif"
    if content == AVIF and not features.check("avif"):
        return f"{AVIF}, which this Pillow cannot read; to read these, run: pip install --upgrade pillow"
    if content in (HEIC, AVIF):
        return f"{content} that is damaged or of a kind that is not read"
    if content is not None:
        return f"not an image in a known format, but {content}"
    name = next((name for name, mark in _PICTURES if start.startswith(mark)), None)
    if name is None:
        return "not an image in a known format"
    return f"{name} image that is damaged or of a kind that is not read"


@cache
def silence_libtiff() -> None:
    """Keep libtiff from printing what it thinks of a file, under the name tempfile.tif; the reader gives a reason."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if "/libtiff" in line}
    for path in filter(os.path.isfile, paths):
        library = ctypes.CDLL(path)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            getattr(library, name)(None)
