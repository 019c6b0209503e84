"""Libraries from packages, loaded in whatever order they need."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from common.devices import cuda_libraries


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A namespace with two packages; `liba` needs `libb`, which needs `libc`."""
    for path in (
        "one/lib/liba.so.1",
        "one/lib/libc.so.3",
        "two/lib/libb.so.2",
        "two/lib/__init__.py",
        "two/include/b.h",
    ):
        file = tmp_path / "vendor" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path / "vendor"


def test_only_libraries_are_found(package) -> None:
    names = [path.name for path in cuda_libraries.installed("vendor")]
    assert names == ["liba.so.1", "libc.so.3", "libb.so.2"]


def test_without_packages_there_is_nothing() -> None:
    assert cuda_libraries.installed("no_such_vendor") == []


def load_with_needs(monkeypatch: pytest.MonkeyPatch, needs: dict[str, str]) -> list[str]:
    """Let ctypes load a library only after the one it needs; return the list of what is loaded."""
    loaded: list[str] = []

    def load(path: str, mode: int) -> None:
        assert mode == ctypes.RTLD_GLOBAL
        name = Path(path).name
        if name in needs and needs[name] not in loaded:
            raise OSError(f"{needs[name]}: cannot open shared object file")
        loaded.append(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    return loaded


def test_libraries_are_loaded_after_those_they_need(package, monkeypatch) -> None:
    loaded = load_with_needs(monkeypatch, {"liba.so.1": "libb.so.2", "libb.so.2": "libc.so.3"})
    assert cuda_libraries.preload(cuda_libraries.installed("vendor")) == []
    assert loaded == ["libc.so.3", "libb.so.2", "liba.so.1"]


def test_what_cannot_be_loaded_is_told(package, monkeypatch) -> None:
    loaded = load_with_needs(monkeypatch, {"libb.so.2": "libcuda.so.1"})
    assert [path.name for path in cuda_libraries.preload(cuda_libraries.installed("vendor"))] == ["libb.so.2"]
    assert loaded == ["liba.so.1", "libc.so.3"]
