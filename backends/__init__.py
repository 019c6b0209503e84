"""The four backends by name, loaded on demand: importing this package imports no framework."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, cast

from common.spec.names import BACKENDS

if TYPE_CHECKING:
    from common.contract.backend import Backend

# Backend -> the modules that must be importable before it can be loaded.
REQUIRED_MODULES: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "torchvision"),
    "keras": ("tensorflow", "keras", "keras_hub"),
    "jax": ("jax", "flax", "optax", "flaxmodels", "grain"),
    "mxnet": ("mxnet",),
}
NAMES = BACKENDS


class BackendNotInstalled(ImportError):
    """The packages of a backend are missing from this interpreter; the message says how to install them."""


def missing_modules(name: str) -> list[str]:
    """Return the modules that backend `name` needs and this interpreter lacks, without importing any of them."""
    return [module for module in REQUIRED_MODULES[name] if importlib.util.find_spec(module) is None]


def is_installed(name: str) -> bool:
    """Return whether this interpreter has every module that backend `name` needs."""
    return not missing_modules(name)


def load(name: str) -> Backend:
    """Import backend `name` and return its package.

    A name that is not in `NAMES` ends in a KeyError.

    Args:
        name: One of `NAMES`.

    Returns:
        The package `backends.<name>`, which has the functions that `common.contract.backend.Backend` documents.

    Raises:
        BackendNotInstalled: A package of the backend is missing; the message says how to install it.
    """
    missing = missing_modules(name)
    if missing:
        raise BackendNotInstalled(
            f"the {name} backend needs {', '.join(missing)}, which this Python lacks. "
            f"`python -m scripts.run --backend {name}` builds an environment that has everything; "
            f'`pip install ".[{name}]"` installs it into this one.'
        )
    # Imported only here, because the code that finds the environments imports this package in a bare interpreter.
    from common.system.machine import keep_freed_memory

    keep_freed_memory()
    return cast("Backend", importlib.import_module(f"backends.{name}"))


def chapter_file(name: str) -> Path:
    """Return the path of the file with the chapter's own code in the framework of backend `name`.

    >>> chapter_file("jax").parts[-3:]
    ('backends', 'jax', 'chapter.py')
    """
    return Path(__file__).parent / name / "chapter.py"
