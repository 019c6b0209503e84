"""Tell from its first bytes which framework wrote a weights file."""

from __future__ import annotations

import mmap
import zipfile
from dataclasses import dataclass
from pathlib import Path

from common.system.errors import UserError


@dataclass(frozen=True)
class Kind:
    """A kind of weights file."""

    words: str
    """What a person calls it."""
    backend: str | None
    """The backend that reads it; None for safetensors, which needs no framework."""


SAFETENSORS = Kind("safetensors", None)
TORCH = Kind("PyTorch", "torch")
KERAS = Kind("Keras", "keras")
FLAXMODELS = Kind("flaxmodels", "jax")
FLAX = Kind("Flax msgpack", "jax")
GLUON = Kind("Gluon", "mxnet")
# Suffix of the file that a backend writes.
FILE_SUFFIX = {"torch": ".pth", "keras": ".weights.h5", "jax": ".msgpack", "mxnet": ".params"}
READABLE = (
    ".pth, .pt or .bin (PyTorch), .weights.h5 or .keras (Keras), .h5 (Keras or flaxmodels), .msgpack (Flax), .params "
    "(Gluon) and .safetensors"
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ARRAYS_OF_MXNET = b"\x12\x01\0\0\0\0\0\0"
# A pickle says its version after this byte; torch's oldest format is one.
_PICKLE = 0x80
# The first byte of a msgpack map of up to 15 entries, or of more.
_MSGPACK_MAPS = (*range(0x81, 0x90), 0xDE, 0xDF)


def kind_of(path: Path) -> Kind:
    """Return the kind of a weights file by its content; its name counts where the content leaves it open.

    Args:
        path: The file.

    Returns:
        The kind.

    Raises:
        UserError: There is no such file, or it is of no kind that can be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; expected a file: {READABLE}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not start:
        raise UserError(f"{path}: the file is empty")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: only a pointer to the file; `git lfs pull` downloads the file itself")
    if start.startswith(_HDF5):
        return _kind_of_hdf5(path)
    if start.startswith(b"PK"):
        return _kind_of_zip(path)
    if start.startswith(_ARRAYS_OF_MXNET):
        return GLUON
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return SAFETENSORS
    if start[0] == _PICKLE and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return TORCH
    if start[0] in _MSGPACK_MAPS:
        return FLAX
    raise UserError(f"{path}: no weights file, or a damaged one; it begins with {start[:16]!r}. Read are {READABLE}")


def _kind_of_hdf5(path: Path) -> Kind:
    """Tell flaxmodels' HDF5 files, whose groups have torchvision's names, from Keras'."""
    if path.name.endswith(".weights.h5"):
        return KERAS
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return FLAXMODELS if content.find(b"downsample\0") >= 0 else KERAS


def _kind_of_zip(path: Path) -> Kind:
    """Tell Keras' zip files from PyTorch's; PyTorch says best itself what is wrong with a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return KERAS if path.suffix == ".keras" else TORCH
    return KERAS if path.suffix == ".keras" or any(name.endswith(".weights.h5") for name in names) else TORCH
