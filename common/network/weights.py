"""One weights format for four frameworks: safetensors under torchvision's names, preprocessing in the metadata."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.network import imagenet, resnet
from common.system.errors import UserError
from common.system.files import write_atomically

Arrays = dict[str, NDArray[np.float32]]
_FLOAT_TYPES = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class Preprocessing:
    """What an image must go through before a network with these weights sees it.

    A pixel of channel c with value v (0 to 255) becomes (v * scale - mean[c]) / std[c].
    """

    image_size: int = 224
    resize_size: int = 256
    interpolation: Literal["bilinear"] = "bilinear"
    channel_order: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Header:
    """What a weights file says of itself, without its numbers."""

    architecture: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    source: str


@dataclass(frozen=True)
class Checkpoint:
    """A network's numbers, float32 under torchvision's names, and what they need to be used."""

    header: Header
    arrays: Arrays


def check(arrays: Mapping[str, NDArray[Any]], expected: resnet.Shapes, where: object) -> None:
    """Raise UserError naming the first tensor that is missing, unknown, of another shape, or not finite."""
    for name, shape in expected.items():
        if name not in arrays:
            raise UserError(f"{where}: the tensor {name} is missing")
        if arrays[name].shape != shape:
            raise UserError(f"{where}: the tensor {name} has shape {arrays[name].shape}, expected {shape}")
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"{where}: the tensor {name} holds values that are not finite")
    for name in arrays:
        if name not in expected:
            raise UserError(f"{where}: the tensor {name} belongs to no parameter of this network")


def read_header(path: Path) -> Header:
    """What a safetensors file says of itself. A file without metadata counts as ImageNet weights of torchvision's
    preprocessing. Raises UserError for a file that is no safetensors file or whose metadata is wrong."""
    table = _read_table(path)
    metadata = table.pop("__metadata__", {})
    shape = table.get("fc.weight", {}).get("shape", [resnet.SOURCE_CLASSES])
    if not shape:
        raise UserError(f"{path}: the tensor fc.weight has no shape, expected (classes, features)")
    try:
        names = tuple(json.loads(metadata["class_names"])) if "class_names" in metadata else None
        values = {f: _parse(f, metadata[f]) for f in Preprocessing.__dataclass_fields__ if f in metadata}
        preprocessing = Preprocessing(**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: the metadata cannot be read: {error}") from error
    if names is None:
        if shape[0] != resnet.SOURCE_CLASSES:
            raise UserError(f"{path}: the metadata has no class_names for its {shape[0]} classes")
        names = imagenet.class_names()
    if len(names) != shape[0]:
        raise UserError(f"{path}: the metadata names {len(names)} classes, but fc.weight has {shape[0]} rows")
    return Header(metadata.get("architecture", ""), names, preprocessing, metadata.get("source", str(path.name)))


def read(path: Path) -> Checkpoint:
    """Read a safetensors file as float32 arrays. Raises UserError naming the tensor that is of a wrong type."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    header = read_header(path)
    for name, entry in _read_table(path).items():
        if name != "__metadata__" and entry["dtype"] not in _FLOAT_TYPES and not name.endswith("num_batches_tracked"):
            raise UserError(f"{path}: the tensor {name} has dtype {entry['dtype']}, expected a floating-point type")
    try:
        stored = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{path}: the tensors cannot be read: {error}") from error
    arrays = {
        # torch counts batches for a mode of BatchNorm that this network does not use.
        name: array.astype(np.float32)
        for name, array in stored.items()
        if not name.endswith("num_batches_tracked")
    }
    return Checkpoint(header, arrays)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: a crash leaves the old file or the new one, never half of one."""
    from safetensors.numpy import save

    header = checkpoint.header
    metadata = {
        "architecture": header.architecture,
        "class_names": json.dumps(header.class_names),
        "num_classes": str(len(header.class_names)),
        "names": "torchvision",
        "source": header.source,
        **{k: v if isinstance(v, str) else json.dumps(v) for k, v in asdict(header.preprocessing).items()},
    }
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in checkpoint.arrays.items()}
    # safetensors stores UTF-8; names of files need not be.
    metadata = {k: v.encode("utf-8", "backslashreplace").decode() for k, v in metadata.items()}
    write_atomically(path, save(arrays, metadata))


def to_channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """torchvision's layout -> Keras' and Flax's: OIHW to HWIO, (out, in) to (in, out), vectors as they are."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


def to_channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """Keras' and Flax's layout -> torchvision's: HWIO to OIHW, (in, out) to (out, in), vectors as they are."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T


def _parse(field: str, text: str) -> Any:
    if field in ("interpolation", "channel_order"):
        allowed = {"interpolation": ("bilinear",), "channel_order": ("RGB", "BGR")}[field]
        if text not in allowed:
            raise ValueError(f"{field} = {text!r}, expected one of {', '.join(allowed)}")
        return text
    value = json.loads(text)
    if field in ("mean", "std"):
        if not (isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) for v in value)):
            raise ValueError(f"{field} = {text}, expected three numbers")
        return tuple(float(v) for v in value)
    if not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{field} = {text}, expected a number above zero")
    return float(value) if field == "scale" else int(value)


def _read_table(path: Path) -> dict[str, Any]:
    """The JSON table at the head of a safetensors file, checked against the file's size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= min(size - 8, 100_000_000):
                raise UserError(f"{path}: not a safetensors file, or one that was cut off")
            table = json.loads(stream.read(length))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: not a safetensors file, or a damaged one") from error
    try:
        for name, entry in table.items():
            if name != "__metadata__" and entry["data_offsets"][1] > size - 8 - length:
                raise UserError(f"{path}: the file was cut off: the tensor {name} lies beyond its end")
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: not a safetensors file, or a damaged one") from error
    return dict(table)
