"""Paths that users type, and files that are whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from common.system.errors import UserError


def user_path(option: str, text: str) -> Path:
    """The path a user gave as `option`, ~ expanded; raises UserError for one that no file system can hold."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise UserError(f"{option} {shown}: not a path that can be used: {reason}") from error
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file by way of a temporary one in the same folder: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        # mkstemp's files are private to their owner; this one should be as readable as any other.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
