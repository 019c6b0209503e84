"""The tensors of a weights file under the file's own names, and how they travel between two environments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.network import weights
from common.system.errors import UserError

# Stands in a name behind what is beside the network, such as `optimizer/` in a checkpoint.
CONTAINER = "/"
DEEPEST = 32
_TABLES = "tables"
_WHOLE = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "u1"}


@dataclass(frozen=True)
class StoredTensors:
    """What a file holds."""

    tensors: dict[str, NDArray[Any]]
    """Name in the file -> tensor in torchvision's layout. A nested name is joined by `.` inside a network and by
    CONTAINER outside of it: `model/layer1.0.conv1.weight`."""
    tables: tuple[dict[str, str], ...] = ()
    """Tables of the framework's own names -> torchvision's names."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Metadata of a safetensors file."""


def flatten(content: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of nested dictionaries with their names; leave out everything else.

    >>> dict(flatten({"epoch": 3, "model": {"fc.bias": np.zeros(2)}}))
    {'model/fc.bias': array([0., 0.])}

    Args:
        content: Dictionaries whose leaves may be tensors of any framework: what has a shape counts as one.
        prefix: What stands before the names.
        depth: How deep this content lies already.

    Yields:
        Names, with CONTAINER between the levels, and tensors.
    """
    if isinstance(content, Mapping) and depth < DEEPEST:
        for key, value in content.items():
            if hasattr(value, "shape"):
                yield f"{prefix}{key}", value
            else:
                yield from flatten(value, f"{prefix}{key}{CONTAINER}", depth + 1)


def read_safetensors(path: Path) -> StoredTensors:
    """Read all tensors of a safetensors file, with bfloat16 as float32.

    Args:
        path: The file.

    Returns:
        Tensors and metadata. A type that NumPy lacks is given as bytes.

    Raises:
        UserError: It is no safetensors file, or one that was cut off.
    """
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        entries = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file, or one that was cut off or damaged") from error
    tensors = {name: _tensor(entry) for name, entry in sorted(entries, key=lambda pair: pair[0])}
    return StoredTensors(tensors, metadata=metadata)


def _tensor(entry: Mapping[str, Any]) -> NDArray[Any]:
    if entry["dtype"] in weights.FLOAT_TYPES:
        return weights.as_float32(entry["data"], entry["dtype"]).reshape(entry["shape"])
    if entry["dtype"] in _WHOLE:
        return np.frombuffer(entry["data"], _WHOLE[entry["dtype"]]).reshape(entry["shape"])
    return np.frombuffer(entry["data"], np.uint8)


def write_exchange(path: Path, stored: StoredTensors) -> None:
    """Write the tensors for a process of another environment, which reads them with `read_exchange`."""
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in stored.tensors.items()}
    save_file(tensors, path, {_TABLES: json.dumps(stored.tables), "metadata": json.dumps(stored.metadata)})


def read_exchange(path: Path) -> StoredTensors:
    """Read what `write_exchange` has written."""
    read = read_safetensors(path)
    return StoredTensors(read.tensors, tuple(json.loads(read.metadata[_TABLES])), json.loads(read.metadata["metadata"]))
