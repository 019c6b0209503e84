"""The Python environments under `.nox/`: their names, their contents, and whether each is ready.

`tools` has nox, the linters, the packages of the tests and the report, and no framework. Every backend has an
environment of its own, because MXNet needs another NumPy than the others. Each is built once and shared by all commands
and nox sessions.

This package runs in a bare interpreter: it imports only the standard library, and a Python older than the project's can
read far enough to report that it is too old.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON = (3, 11)
BASE_MODULES = (
    "numpy", "PIL", "safetensors", "pooch", "filelock", "rich", "tyro", "pydantic", "huggingface_hub", "optuna",
    "tensorboardX", "imagehash",
)  # fmt: skip
REPORT_MODULES = ("jinja2", "matplotlib", "sklearn", "scipy", "cleanlab")


class EnvironmentFailed(Exception):
    """An environment cannot be had; the message says why and what mends it. Commands exit with code 1."""


class InterpreterMissing(EnvironmentFailed):
    """This machine has no Python of a version that an environment needs."""


class Environment(NamedTuple):
    """The contents of one environment.

    `size` is the space it takes on a Linux disk. `newest_python` is the newest Python it can run on; None means any
    from 3.11.
    """

    extras: tuple[str, ...]
    contents: str
    size: str
    newest_python: tuple[int, int] | None = None


ENVIRONMENTS = {
    "tools": Environment(("test", "dev", "report", "check", "heif"), "the linters, the tests and the report", "0.8 GB"),
    "torch": Environment(("test", "torch"), "PyTorch and its CUDA libraries", "5.5 GB"),
    "keras": Environment(("test", "keras"), "Keras on TensorFlow", "2.4 GB"),
    "jax": Environment(("test", "jax"), "JAX, Flax and Optax", "0.9 GB"),
    "mxnet": Environment(("test", "mxnet"), "MXNet 1.9.1", "0.4 GB", newest_python=(3, 11)),
}


def environment_folder(name: str) -> Path:
    """Return the folder of environment `name`, whether it exists or not."""
    return ROOT / ".nox" / name


def environment_python(name: str) -> Path:
    """Return the path of the interpreter of environment `name`, whether it exists or not."""
    return environment_folder(name) / "bin" / "python"


def stamp_file(name: str) -> Path:
    """Return the path of the file that marks environment `name` as complete and says what it was built from."""
    return environment_folder(name) / "environment.json"


def requirements(name: str, cuda: bool = False) -> list[str]:
    """Return the requirements that pip installs into an environment, as pyproject.toml has them.

    Args:
        name: The environment.
        cuda: Whether each extra is replaced by its variant `<extra>-cuda`, where there is one.

    Returns:
        The requirements of the project and of the environment's extras.

    Raises:
        EnvironmentFailed: There is no pyproject.toml, as the project does not lie in a checkout.
    """
    import tomllib

    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except OSError as error:
        raise EnvironmentFailed(
            f"environments are built in a checkout, and {ROOT} holds no pyproject.toml. "
            f'Run the command from a checkout, or install what it needs: pip install "fine-tuning-reference[{name}]"'
        ) from error
    extras = project["optional-dependencies"]
    chosen = [f"{extra}-cuda" if cuda and f"{extra}-cuda" in extras else extra for extra in ENVIRONMENTS[name].extras]
    return [*project["dependencies"], *(requirement for extra in chosen for requirement in extras[extra])]


def has_cuda_variant(name: str) -> bool:
    """Return whether the CUDA variant of an environment has other requirements."""
    return requirements(name, cuda=True) != requirements(name)


def variant_for_machine(name: str) -> bool:
    """Return whether an environment that is to be built, of which nobody says so, gets its CUDA variant.

    It is the variant that somebody asked for last. Otherwise it is the CUDA variant where NVIDIA's driver is found, or
    where it was built before.
    """
    from common.devices import driver

    stamp = read_stamp(name)
    before = stamp.get("cuda") is True
    return before if before or stamp.get("asked") is True else driver.find_driver() is not None


def make_stamp(name: str, cuda: bool, asked: bool = False) -> dict[str, Any]:
    """Return the stamp of a complete environment.

    Args:
        name: The environment.
        cuda: Whether it is the CUDA variant.
        asked: Whether somebody asked for the variant.

    Returns:
        A hash of its requirements, its variant, whether that was asked for, and the path of its base interpreter.
    """
    import hashlib

    digest = hashlib.sha256("\n".join(requirements(name, cuda)).encode()).hexdigest()
    interpreter = os.path.realpath(environment_python(name))
    return {"requirements": digest, "cuda": cuda, "asked": asked, "interpreter": interpreter}


def read_stamp(name: str) -> dict[str, Any]:
    """Return the stamp of environment `name`, empty where it is missing or damaged."""
    import json

    try:
        stamp = json.loads(stamp_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(name: str, stamp: Mapping[str, Any]) -> None:
    """Write the stamp of environment `name` in one step, so that no reader sees half of it."""
    import json

    draft = stamp_file(name).with_suffix(".draft")
    draft.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, stamp_file(name))


def note_choice(name: str, cuda: bool) -> None:
    """Note in the stamp of a ready environment that somebody asked for its variant, unless that stands there."""
    stamp = read_stamp(name)
    if (stamp.get("cuda"), stamp.get("asked")) != (cuda, True):
        write_stamp(name, {**stamp, "cuda": cuda, "asked": True})


def ready_python(name: str, cuda: bool | None = None) -> Path | None:
    """Return the interpreter of an environment if it is complete and up to date; no process is started for it.

    Args:
        name: The environment.
        cuda: Whether the CUDA variant is asked for; None asks for the variant that was built last.

    Returns:
        The path of the interpreter, or None if the environment is not ready.

    Raises:
        EnvironmentFailed: The project does not lie in a checkout.
    """
    stamp, python = read_stamp(name), environment_python(name)
    if "requirements" not in stamp or not python.exists():
        return None
    wanted = make_stamp(name, stamp.get("cuda") is True if cuda is None else cuda)
    return python if all(stamp.get(key) == wanted[key] for key in ("requirements", "interpreter")) else None


def check_python_version() -> None:
    """Raise EnvironmentFailed if this interpreter is older than the project needs."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise EnvironmentFailed(
            f"this is Python {sys.version_info[0]}.{sys.version_info[1]} ({sys.executable}), and the project needs "
            f"Python {dotted(OLDEST_PYTHON)} or newer. Start the command with a newer one, such as python3.11."
        )


def say(text: str) -> None:
    """Print a text on stderr; stdout is for the command's own output."""
    print(text, file=sys.stderr, flush=True)


def dotted(version: Sequence[int]) -> str:
    """Return a version as people write it.

    >>> dotted((3, 11))
    '3.11'

    Args:
        version: The numbers of the version.

    Returns:
        The numbers with dots in between.
    """
    return ".".join(map(str, version))
