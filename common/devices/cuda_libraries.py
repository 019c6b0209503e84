"""Load NVIDIA's libraries from the packages that hold them, for a framework that looks for them in the system alone."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterable
from pathlib import Path


def installed(package: str = "nvidia") -> list[Path]:
    """Return the shared libraries of NVIDIA's packages in this environment; empty where there are none.

    Args:
        package: The namespace that the packages share; each has its libraries in `<package>/<name>/lib`.

    Returns:
        The paths, sorted.
    """
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found is not None else None
    return sorted(path for folder in folders or () for path in Path(folder).glob("*/lib/*.so*") if path.is_file())


def preload(libraries: Iterable[Path]) -> list[Path]:
    """Load libraries into this process, so that whatever needs one of them by its name later finds it there.

    Each is tried again as long as others can be loaded, since they need each other in an order that no package states.

    Args:
        libraries: Their paths.

    Returns:
        Those that cannot be loaded.
    """
    left = list(libraries)
    while True:
        failed = [path for path in left if not _load(path)]
        if len(failed) == len(left):
            return failed
        left = failed


def _load(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
