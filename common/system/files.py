"""Check paths that users type, and write files so that they are whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from common.system.errors import UserError


def user_path(option: str, text: str) -> Path:
    """Turn the path that a user typed into a Path, with ~ expanded.

    Args:
        option: The option that the user gave it to, for the message.
        text: The path as typed; it need not exist.

    Returns:
        The path.

    Raises:
        UserError: No file system can hold such a path, or its ~ cannot be expanded.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise UserError(f"{option} {shown}: not a path that can be used: {reason}") from error
    return path


def check_place(option: str, path: Path) -> None:
    """Check that a file or folder can be made at a path, without making it.

    Args:
        option: The option that the user gave the path to, for the message.
        path: The path; the folders above it need not exist.

    Raises:
        UserError: The nearest thing above it that exists is no folder, or cannot be written to.
    """
    above = path
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: {above} cannot be written to")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old file or the whole new one.

    The content goes to a temporary file in the same folder, which then takes the file's place.

    Args:
        path: The file; its folder is made if need be.
        content: All bytes of the file.
    """
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
