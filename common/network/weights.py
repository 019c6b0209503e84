"""One weights format for four frameworks: safetensors under torchvision's names, preprocessing in the metadata."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.network import imagenet, preprocessing_metadata, resnet
from common.network.preprocessing_metadata import Preprocessing
from common.system.errors import UserError
from common.system.files import write_atomically

Arrays = dict[str, NDArray[np.float32]]
FLOAT_TYPES = ("F16", "BF16", "F32", "F64")
# safetensors reads no longer header either, in bytes.
_LONGEST_HEADER = 100_000_000
# safetensors reads no longer header either, in bytes.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Header:
    """What a weights file says of itself, without its numbers."""

    architecture: str
    class_names: tuple[str, ...]
    """Names of the head's rows, in their order; empty for a backbone without a head."""
    preprocessing: Preprocessing
    source: str
    stated: frozenset[str] = field(default=frozenset(), compare=False)
    """Fields of `preprocessing` that the file names; the others have their defaults."""


@dataclass(frozen=True)
class Checkpoint:
    """A network's numbers, float32 under torchvision's names, and what they need to be used."""

    header: Header
    arrays: Arrays


def check(arrays: Mapping[str, NDArray[Any]], expected: resnet.Shapes, where: object) -> None:
    """Raise UserError naming the first tensor that is missing, unknown, of another shape, or impossible."""
    for name, shape in expected.items():
        if name not in arrays:
            raise UserError(f"{where}: the tensor {name} is missing")
        if arrays[name].shape != shape:
            raise UserError(f"{where}: the tensor {name} has shape {arrays[name].shape}, expected {shape}")
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"{where}: the tensor {name} holds values that are not finite")
        if name.endswith("running_var") and (arrays[name] < 0).any():
            raise UserError(f"{where}: the tensor {name} holds variances below 0")
    for name in arrays:
        if name not in expected:
            raise UserError(f"{where}: the tensor {name} belongs to no parameter of this network")


def expected_shapes(architecture: str, classes: int) -> resnet.Shapes:
    """Return the shapes that a checkpoint of an architecture has; with 0 classes, those of a backbone without head."""
    shapes = resnet.shapes(architecture, classes)
    return shapes if classes else {name: shape for name, shape in shapes.items() if name not in resnet.HEAD}


def read_header(path: Path) -> Header:
    """Read what a safetensors file says of itself.

    A file without metadata counts as ImageNet weights of torchvision's preprocessing.

    Args:
        path: The file.

    Returns:
        Architecture (empty if the file does not say), class names (none if the file has no head), preprocessing and
        source.

    Raises:
        UserError: It is no safetensors file, one that was cut off, or one whose metadata is wrong.
    """
    metadata, shape = _read_table(path)
    names = _class_names(metadata["class_names"], path) if "class_names" in metadata else None
    preprocessing, stated = preprocessing_metadata.read(metadata, path)
    if shape is None:
        names = ()
    elif names is None:
        if shape[0] != resnet.SOURCE_CLASSES:
            raise UserError(
                f"{path}: the metadata has no class_names for its {shape[0]} classes; "
                f"python -m scripts.convert {shlex.quote(str(path))} --output NEW.safetensors --class-names FILE "
                "adds them"
            )
        names = imagenet.class_names()
    if shape is not None and len(names) != shape[0]:
        raise UserError(f"{path}: the metadata names {len(names)} classes, but fc.weight has {shape[0]} rows")
    architecture, source = metadata.get("architecture", ""), metadata.get("source", str(path.name))
    return Header(architecture, names, preprocessing, source, stated)


def read(path: Path) -> Checkpoint:
    """Read a safetensors file as float32 arrays, whichever floating-point type it has.

    Args:
        path: The file.

    Returns:
        Its header and arrays, without torch's counts of batches.

    Raises:
        UserError: The file is damaged, or has a tensor of another type, which is named.
    """
    from safetensors import SafetensorError, deserialize

    header = read_header(path)
    try:
        stored = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: the tensors cannot be read: {error}") from error
    arrays = {}
    for name, entry in sorted(stored, key=lambda pair: pair[0]):
        # torch counts batches for a mode of BatchNorm that this network does not use.
        if name.endswith("num_batches_tracked"):
            continue
        if entry["dtype"] not in FLOAT_TYPES:
            raise UserError(f"{path}: the tensor {name} has dtype {entry['dtype']}, expected a floating-point type")
        arrays[name] = as_float32(entry["data"], entry["dtype"]).reshape(entry["shape"])
    return Checkpoint(header, arrays)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: a crash leaves the old file or the new one, never half of one.

    The same checkpoint always gives the same bytes.
    """
    from safetensors.numpy import save

    header = checkpoint.header
    metadata = {
        "architecture": header.architecture,
        "class_names": json.dumps(header.class_names),
        "num_classes": str(len(header.class_names)),
        "names": "torchvision",
        "source": header.source,
        **preprocessing_metadata.entries(header.preprocessing),
    }
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in checkpoint.arrays.items()}
    # safetensors stores UTF-8; names of files need not be.
    metadata = {k: v.encode("utf-8", "backslashreplace").decode() for k, v in metadata.items()}
    write_atomically(path, _with_sorted_metadata(save(arrays, metadata)))


def _with_sorted_metadata(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which the library writes in another order in each process."""
    end = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:end])
    table = {"__metadata__": dict(sorted(table.pop("__metadata__").items())), **table}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    # The tensors begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def to_channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """Torchvision's layout -> Keras' and Flax's: OIHW to HWIO, (out, in) to (in, out), vectors as they are."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


def to_channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """Keras' and Flax's layout -> torchvision's: HWIO to OIHW, (in, out) to (out, in), vectors as they are."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T


def _class_names(text: str, path: Path) -> tuple[str, ...]:
    """Return the class names of the metadata; raise UserError for anything but a list of texts."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f'{path}: the metadata entry class_names: expected a list of texts, such as ["cat", "dog"]')
    return tuple(names)


def _read_table(path: Path) -> tuple[dict[str, str], list[int] | None]:
    """Read the metadata of a safetensors file, and the shape of the head's weight, (classes, features), if any."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            head = "fc.weight" in file.keys()  # noqa: SIM118 - no mapping
            shape = file.get_slice("fc.weight").get_shape() if head else None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        if "not fully covered" in str(error):
            raise UserError(f"{path}: the file was cut off: the tensors lie beyond its end") from error
        _check_metadata(path)
        raise UserError(f"{path}: not a safetensors file, or one that was cut off or damaged") from error
    if shape == []:
        raise UserError(f"{path}: the tensor fc.weight has no shape, expected (classes, features)")
    return metadata, shape


def _check_metadata(path: Path) -> None:
    """Raise UserError for a file with an entry that is no text, which safetensors refuses without naming it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            metadata = json.loads(file.read(min(length, _LONGEST_HEADER))).get("__metadata__", {})
            wrong = next((name for name, value in metadata.items() if not isinstance(value, str)), None)
        except (ValueError, AttributeError, RecursionError):
            return
    if wrong is not None:
        raise UserError(f"{path}: the metadata entry {wrong} is {metadata[wrong]!r:.60}: expected text")


def as_float32(data: bytes, dtype: str) -> NDArray[np.float32]:
    """Return the numbers of a tensor; NumPy has no bfloat16, whose bits are the upper half of float32's."""
    if dtype == "BF16":
        upper = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return upper.view(np.float32)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype(np.float32)
