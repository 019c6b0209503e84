"""Check that a run's folder may be written to, and keep other runs out of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from common.runs import record
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.system.files import check_place


def check_output(spec: ExperimentSpec, folder: Path, overwrite: bool) -> None:
    """Check that a run may be written to a folder, without making the folder.

    Args:
        spec: What the user chose, for its source weights.
        folder: The run's folder.
        overwrite: Whether a record that is there may be replaced.

    Raises:
        UserError: The run would replace another record or its own source weights, or the folder cannot be made or
            written to.
    """
    if (folder / record.RECORD).exists() and not overwrite:
        raise UserError(f"--output {folder}: there is a record already; choose another folder, or add --overwrite")
    if Path(spec.weights).resolve() == (folder / record.MODEL).resolve():
        raise UserError(f"--output {folder}: the run would replace its own --weights; choose another folder")
    check_place("--output", folder)


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Make a run's folder and keep other runs out of it while the work inside lasts.

    Args:
        folder: The run's folder. A lock file `.lock` lies in it for as long.

    Raises:
        UserError: Another run is at work in the folder, or it cannot be written to.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"--output {folder}: another run is writing there; choose another folder") from error
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written to: {error.strerror}") from error
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def free_folder(parent: Path, name: str) -> Path:
    """Return the path of a folder in `parent` that does not exist yet, named by date, time of day and `name`."""
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    folder, count = parent / f"{stamp}-{name}", 1
    while folder.exists():
        count += 1
        folder = parent / f"{stamp}-{name}-{count}"
    return folder
