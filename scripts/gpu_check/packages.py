"""The packages that the GPU check needs beside the frameworks, and how to bring them to a machine without a network.

Only the standard library is imported here.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Package(NamedTuple):
    """A package by the module that it gives."""

    module: str
    requirement: str
    """The requirement for pip. The packages travel without their dependencies, which are listed here too."""
    backend: str | None = None
    """The backend that alone needs it; None for all."""


# What pydantic needs of its core is one version only, so that both are named.
PACKAGES = (
    Package("numpy", "numpy"),
    Package("PIL", "pillow>=13,<13.1"),
    Package("safetensors", "safetensors"),
    Package("rich", "rich"),
    Package("markdown_it", "markdown-it-py"),
    Package("mdurl", "mdurl"),
    Package("pygments", "pygments"),
    Package("filelock", "filelock"),
    Package("pydantic", "pydantic==2.14.4"),
    Package("pydantic_core", "pydantic-core==2.50.5"),
    Package("annotated_types", "annotated-types"),
    Package("typing_inspection", "typing-inspection"),
    Package("typing_extensions", "typing-extensions"),
    Package("tyro", "tyro"),
    Package("docstring_parser", "docstring-parser"),
    Package("typeguard", "typeguard"),
    Package("pooch", "pooch"),
    Package("platformdirs", "platformdirs"),
    Package("packaging", "packaging"),
    Package("requests", "requests"),
    Package("pytest", "pytest>=9"),
    Package("pluggy", "pluggy"),
    Package("iniconfig", "iniconfig"),
    Package("torch", "torch", "torch"),
    Package("torchvision", "torchvision", "torch"),
    Package("jax", "jax", "jax"),
    Package("flax", "flax", "jax"),
    Package("optax", "optax", "jax"),
    Package("flaxmodels", "flaxmodels==0.1.3", "jax"),
    Package("h5py", "h5py", "jax"),
    Package("regex", "regex", "jax"),
    Package("tqdm", "tqdm", "jax"),
    Package("grain", "grain", "jax"),
    Package("array_record", "array-record", "jax"),
    Package("portpicker", "portpicker", "jax"),
    Package("cloudpickle", "cloudpickle", "jax"),
    Package("etils", "etils", "jax"),
    Package("absl", "absl-py", "jax"),
    Package("google.protobuf", "protobuf", "jax"),
)
# Of the frameworks there is a build for each kind of GPU and driver: nobody can say here which one is the right one.
FRAMEWORKS = ("torch", "torchvision", "jax")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64",
             "manylinux2014_x86_64")  # fmt: skip


def missing(names: Sequence[str]) -> list[Package]:
    """Return the packages that backends need and this interpreter lacks; no package is imported."""
    return [
        package for package in PACKAGES
        if package.backend in (None, *names) and not is_there(package.module)
    ]  # fmt: skip


def is_there(module: str) -> bool:
    """Return whether a module can be found, also one inside a package."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def how_to_bring(wanted: Sequence[Package]) -> str:
    """Return what is missing and the commands that bring it, for people.

    Args:
        wanted: The packages that are missing.

    Returns:
        The message, in which each command has a line of its own.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    frameworks = [package for package in wanted if package.module in FRAMEWORKS]
    others = [package.requirement for package in wanted if package not in frameworks]
    lines = [f"error: this Python ({sys.executable}) lacks {', '.join(package.module for package in wanted)}."]
    if frameworks:
        lines.append(
            f"{', '.join(package.module for package in frameworks)}: install the build for this GPU, or leave the "
            "backend out (--backends)."
        )
    if others:
        lines += [
            "Where there is a network, fetch the others as wheels, take the folder along, and install it here:",
            "",
            "  " + download_command(version, others),
            "  python3 -m pip install --no-index --no-deps --upgrade --target site wheels/*.whl",
            '  PYTHONPATH="$PWD/site" python3 -m scripts.gpu_check',
        ]
    return "\n".join(lines)


def download_command(version: str, requirements: Sequence[str]) -> str:
    """Return the command that fetches the wheels of requirements.

    Args:
        version: The version of the Python that is to use them, such as `3.12`.
        requirements: The requirements.

    Returns:
        A command line for a POSIX shell.
    """
    platforms = " ".join(f"--platform {platform}" for platform in PLATFORMS)
    quoted = " ".join(map(shlex.quote, requirements))
    return (
        f"python3 -m pip download --no-deps --only-binary=:all: --python-version {version} --implementation cp "
        f"{platforms} -d wheels {quoted}"
    )
