"""The one cache: entries are built once, whole or not there, and within a limit."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from common.system.caches import Cache, NoRoom


def write(folder: Path, size: int = 1000) -> None:
    (folder / "content").write_bytes(b"x" * size)


def names(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if path.is_dir())


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    cache, built = Cache(tmp_path / "cache"), []

    def fill(folder: Path) -> None:
        built.append(folder)
        time.sleep(0.05)
        write(folder)

    threads = [threading.Thread(target=cache.get, args=("entry", fill)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (cache.get("entry", fill) / "content").stat().st_size == 1000
    assert cache.find("entry") == tmp_path / "cache" / "entry"
    assert cache.find("other") is None


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(folder: Path) -> None:
        write(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cache.get("entry", fail)
    assert names(cache) == []


def test_a_damaged_entry_is_built_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (cache.get("entry", write) / "content").write_bytes(b"cut")
    whole = lambda entry: (entry / "content").stat().st_size == 1000  # noqa: E731
    assert whole(cache.get("entry", write, whole=whole))


def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=2500)
    for age, name in ((30, "old"), (40, "older, but used")):
        os.utime(cache.get(name, write, 1000), (time.time() - age, time.time() - age))
    assert cache.find("older, but used") is not None
    cache.get("new", write, 1000)
    assert names(cache) == ["new", "older, but used"]


def test_an_entry_above_the_limit_is_refused(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=2500, setting="THE_LIMIT")
    cache.get("entry", write, 1000)
    with pytest.raises(NoRoom, match="THE_LIMIT"):
        cache.get("large", write, 3000)
    assert names(cache) == ["entry"]
