"""What can be made again and is kept: one bounded cache, whose entries are built once and are whole or not there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout


class NoRoom(Exception):
    """An entry is larger than the limit of its cache, or than the disk has room for."""


def cache_folder() -> Path:
    """Return where everything is kept: $FINE_TUNING_CACHE, or `cache/` beside the project's packages."""
    named = os.environ.get("FINE_TUNING_CACHE")
    return Path(named).expanduser() if named else Path(__file__).resolve().parents[2] / "cache"


def _any(entry: Path) -> bool:
    return True


@dataclass(frozen=True)
class Cache:
    """A folder of entries, each a folder of its own, of which the longest unused make room for new ones."""

    folder: Path
    limit: int | None = None
    """Bytes that all entries may take; None for no limit."""
    setting: str = ""
    """The environment variable that sets the limit, if one does."""

    def get(self, name: str, fill: Callable[[Path], None], size: int = 0, whole: Callable[[Path], bool] = _any) -> Path:
        """Return the entry `name`, built first unless it is there; one process builds it while others wait.

        Args:
            name: Name of the entry.
            fill: Writes the entry into the empty folder that it is given, which appears under its name once whole.
            size: Bytes that the new entry will take, if they are known.
            whole: Tells whether an entry that is there is as it should be; if not, it is built anew.

        Returns:
            The folder of the entry.

        Raises:
            NoRoom: The entry cannot fit.
            OSError: The folder cannot be written to, or the disk is full; nothing half-built stays.
        """
        entry = self.folder / name
        if not (entry.is_dir() and whole(entry)):
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / f"{name}.lock"):
                if not (entry.is_dir() and whole(entry)):
                    self._build(entry, fill, size)
        # The date of the last use, by which room is made.
        os.utime(entry)
        return entry

    def find(self, name: str) -> Path | None:
        """Return the entry `name`, or None where there is none; counts as a use."""
        entry = self.folder / name
        try:
            os.utime(entry)
        except OSError:
            return None
        return entry

    def _build(self, entry: Path, fill: Callable[[Path], None], size: int) -> None:
        partial = entry.with_name(f"{entry.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(entry, ignore_errors=True)
        self._make_room(size)
        partial.mkdir()
        try:
            fill(partial)
            partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _make_room(self, size: int) -> None:
        """Delete the longest unused entries until `size` more bytes are within the limit and on the disk."""
        if self.limit is not None:
            if size > self.limit:
                set_by = f" ({self.setting})" if self.setting else ""
                raise NoRoom(f"{size / 2**30:.1f} GiB are more than {self.limit / 2**30:.1f} GiB{set_by}")
            entries = [path for path in self.folder.iterdir() if path.is_dir() and path.suffix != ".partial"]
            sizes = {path: _bytes_below(path) for path in entries}
            for oldest in sorted(entries, key=lambda path: path.stat().st_mtime):
                if sum(sizes.values()) + size <= self.limit:
                    break
                # A file that a run has mapped stays readable to it.
                shutil.rmtree(oldest, ignore_errors=True)
                del sizes[oldest]
        # As much again stays free for everything else.
        if 2 * size > shutil.disk_usage(self.folder).free:
            raise NoRoom(f"{size / 2**30:.1f} GiB do not fit on the disk of {self.folder}")


def _bytes_below(folder: Path) -> int:
    """Add up the sizes of the files below a folder, some of which may vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, and say so where another process has it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"Another process is preparing {path.with_suffix('')}; waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
