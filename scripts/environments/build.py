"""Build one of the environments: find a Python for it, create it with venv or virtualenv, and let pip fill it.

`scripts.environments.use` imports this module only when an environment is to be built. It imports only the standard
library.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from common.devices import driver
from scripts.environments import definitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# With these variables pip, or an environment's Python, would use another place than that environment.
MISLEADING_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV")
PIP_INSTALL = ("-m", "pip", "install", "--no-input", "--disable-pip-version-check")


def build(name: str, cuda: bool, asked: bool = False) -> Path:
    """Replace an environment by a new one; the caller holds the lock.

    If anything stops the build, also KeyboardInterrupt, nothing is left that looks ready.

    Args:
        name: The environment.
        cuda: Whether to build the CUDA variant.
        asked: Whether somebody asked for the variant, which later builds then keep.

    Returns:
        The path of the new environment's interpreter.

    Raises:
        EnvironmentFailed: The environment could not be built.
        InterpreterMissing: This machine lacks a Python that the environment can run on.
    """
    interpreter, packages = find_interpreter(name), definitions.requirements(name, cuda)
    folder, started = definitions.environment_folder(name), time.monotonic()
    _announce(name, cuda, asked)
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        # Not a complete stamp: it only remembers the choice of the variant if the build fails.
        definitions.write_stamp(name, {"cuda": cuda, "asked": asked})
        _create(interpreter, folder)
        _install(name, packages)
        definitions.write_stamp(name, definitions.make_stamp(name, cuda, asked))
    except BaseException:
        _discard(name, cuda, asked)
        raise
    definitions.say(f"The {name} environment is ready after {time.monotonic() - started:.0f} seconds.")
    return definitions.environment_python(name)


def _announce(name: str, cuda: bool, asked: bool) -> None:
    """Say what is about to be built, for which kind of machine and why, where, and how much space it takes."""
    environment, folder = definitions.ENVIRONMENTS[name], definitions.environment_folder(name)
    extended = cuda and definitions.has_cuda_variant(name)
    free = shutil.disk_usage(definitions.ROOT).free / 1e9
    definitions.say(
        f"Building the {name} environment in {folder}: {environment.contents}{_variant(name, extended, asked)}. "
        f"It takes about {environment.size}{', plus several GB of CUDA libraries,' if extended else ''} on disk, where "
        f"{free:.0f} GB are free. This happens once; the next start needs no network."
    )


def _variant(name: str, extended: bool, asked: bool) -> str:
    """Return what to say of the variant: that it is the one for a GPU, and if nobody asked for it why."""
    if not extended:
        return ""
    found = None if asked else driver.find_driver()
    if found is None:
        return " (CUDA variant)"
    return (
        f" (CUDA variant, as NVIDIA's driver is here: {found}; without it by `python3 noxfile.py -s environment-{name} "
        "-- --no-cuda`)"
    )


def _discard(name: str, cuda: bool, asked: bool) -> None:
    """Remove what a failed build left, except the choice of the variant; ignore further errors."""
    with suppress(OSError):
        definitions.stamp_file(name).unlink(missing_ok=True)
        shutil.rmtree(definitions.environment_folder(name), ignore_errors=True)
        if cuda or asked:
            definitions.environment_folder(name).mkdir(exist_ok=True)
            definitions.write_stamp(name, {"cuda": cuda, "asked": asked})


def find_interpreter(name: str) -> list[str]:
    """Return the command that starts a Python on which an environment can run: this interpreter if it can.

    Args:
        name: The environment.

    Returns:
        The program and its arguments.

    Raises:
        InterpreterMissing: There is no such Python on PATH or in pyenv.
    """
    newest = definitions.ENVIRONMENTS[name].newest_python
    if newest is None or sys.version_info[:2] <= newest:
        return [sys.executable]
    for command in _candidates(definitions.dotted(newest)):
        if _output([*command, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]) == definitions.dotted(newest):
            return command
    environment, wanted = definitions.ENVIRONMENTS[name], definitions.dotted(newest)
    raise definitions.InterpreterMissing(
        f"the {name} environment needs Python {wanted}: {environment.contents} runs on no newer one, and this is "
        f"{definitions.dotted(sys.version_info[:2])}. No python{wanted} was found on PATH or in pyenv. Install one, "
        f"such as with `pyenv install {wanted}`, and run the command again."
    )


def _candidates(version: str) -> Iterator[list[str]]:
    """Yield commands that may start Python `version`: on Windows `py`, then those on PATH, then those of pyenv."""
    for folder in os.get_exec_path():
        found = shutil.which(f"python{version}", path=folder)
        if found:
            yield [found]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for path in sorted(pyenv.glob(f"versions/{version}*/bin/python{version}"), reverse=True):
        yield [str(path)]


def _create(interpreter: Sequence[str], folder: Path) -> None:
    """Create an empty environment by the first means there is: venv, virtualenv, or a virtualenv fetched by pip."""
    if _can_run(interpreter, "import ensurepip; ensurepip.version()"):
        _run([*interpreter, "-m", "venv", str(folder)], "creating the environment")
    elif _can_run(interpreter, "import virtualenv"):
        _run([*interpreter, "-m", "virtualenv", "--quiet", str(folder)], "creating the environment")
    elif _can_run(interpreter, "import pip"):
        # Debian's Python refuses a pip install into itself, but allows one into another folder.
        with tempfile.TemporaryDirectory() as fetched:
            _run(
                [*interpreter, *PIP_INSTALL, "--quiet", "--target", fetched, "virtualenv"],
                "fetching virtualenv with pip",
            )
            command = [*interpreter, "-m", "virtualenv", "--quiet", str(folder)]
            _run(command, "creating the environment", {"PYTHONPATH": fetched})
    else:
        raise definitions.EnvironmentFailed(
            f"{' '.join(interpreter)} can create no environment: it has neither venv (with ensurepip) nor pip. "
            "On Debian and Ubuntu this mends it: sudo apt install python3-venv"
        )


def _install(name: str, packages: Iterable[str]) -> None:
    """Install `packages` into environment `name` with pip; show its progress on stderr, keep its log on failure."""
    log = definitions.environment_folder(name).with_suffix(".log")
    log.unlink(missing_ok=True)
    try:
        _run([str(definitions.environment_python(name)), *PIP_INSTALL, "--log", str(log), *packages], "pip")
    except definitions.EnvironmentFailed as failed:
        raise definitions.EnvironmentFailed(
            f"the {name} environment was not built: pip could not install its packages. The end of its log, {log}:\n"
            f"{_tail_of_log(log)}\nMend the cause (no network, a full disk, a Python without wheels) and run the same "
            f"command again, or build it alone: python3 noxfile.py -s environment-{name}"
        ) from failed
    log.unlink(missing_ok=True)


def _tail_of_log(log: Path) -> str:
    """Return the last five error lines of a pip log, or its last five lines where none is marked as an error."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "  (there is no log)"
    plain = [re.sub(r"^\d[\d-]*T[\d:,]+ ", "", line) for line in lines]
    errors = [line for line in plain if line.startswith("ERROR") or "[Errno" in line]
    return "\n".join(f"  {line}" for line in (errors or plain)[-5:])


def _run(command: Sequence[str], what: str, variables: Mapping[str, str] | None = None) -> None:
    """Run `command` with its output on stderr; raise EnvironmentFailed, naming `what`, unless it exits with 0."""
    result = subprocess.run(
        command, env={**_plain_variables(), **(variables or {})}, stdin=subprocess.DEVNULL, stdout=2, check=False
    )
    if result.returncode != 0:
        raise definitions.EnvironmentFailed(f"{what} failed with exit code {result.returncode}: {' '.join(command)}")


def _output(command: Sequence[str]) -> str:
    """Return what `command` prints on stdout, stripped; an empty text if it cannot be started."""
    try:
        result = subprocess.run(
            command, env=_plain_variables(), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except OSError:
        return ""
    return result.stdout.strip()


def _can_run(interpreter: Sequence[str], statements: str) -> bool:
    """Return whether `interpreter` can run some statements without an error."""
    return _output([*interpreter, "-c", f"{statements}; print('yes')"]) == "yes"


def _plain_variables() -> dict[str, str]:
    """Return the environment variables of this process without the misleading ones."""
    return {key: value for key, value in os.environ.items() if key not in MISLEADING_VARIABLES}


@contextmanager
def build_lock(name: str) -> Iterator[None]:
    """Let one process at a time build environment `name`; the system frees the lock of a process that died."""
    with definitions.environment_folder(name).with_suffix(".lock").open("a+b") as file:
        if not _try_lock(file):
            definitions.say(f"Another process is building the {name} environment; waiting for it.")
            while not _try_lock(file):
                time.sleep(0.2)
        yield


def _try_lock(file: BinaryIO) -> bool:
    """Lock a file without waiting; return whether that succeeded."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
