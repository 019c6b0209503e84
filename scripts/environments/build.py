"""Building one of the environments: a Python for it, venv or virtualenv, pip, a lock.

`scripts.environments.use` imports this only when something is to be built. The standard library only.
"""

from __future__ import annotations

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

from scripts.environments import definitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# They send pip, or an environment's Python, somewhere other than that environment.
MISLEADING_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV")
PIP_INSTALL = ("-m", "pip", "install", "--no-input", "--disable-pip-version-check")


def build(name: str, cuda: bool) -> Path:
    """Replace environment `name` by a new one and return its interpreter; the caller holds the lock.

    Raises EnvironmentFailed (or whatever else stopped it, such as KeyboardInterrupt), and then leaves nothing that
    looks ready.
    """
    interpreter, packages = find_interpreter(name), definitions.requirements(name, cuda)
    folder, started = definitions.environment_folder(name), time.monotonic()
    _announce(name, cuda)
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        # Not a complete stamp: it only keeps the choice of the variant over a build that fails.
        definitions.write_stamp(name, {"cuda": cuda})
        _create(interpreter, folder)
        _install(name, packages)
        definitions.write_stamp(name, definitions.make_stamp(name, cuda))
    except BaseException:
        _discard(name, cuda)
        raise
    definitions.say(f"The {name} environment is ready after {time.monotonic() - started:.0f} seconds.")
    return definitions.environment_python(name)


def _announce(name: str, cuda: bool) -> None:
    environment, folder = definitions.ENVIRONMENTS[name], definitions.environment_folder(name)
    extended = definitions.requirements(name, cuda) != definitions.requirements(name)
    free = shutil.disk_usage(definitions.ROOT).free / 1e9
    definitions.say(
        f"Building the {name} environment in {folder}: {environment.contents}{' (CUDA variant)' if extended else ''}. "
        f"It takes about {environment.size}{', plus several GB of CUDA libraries,' if extended else ''} on disk, where "
        f"{free:.0f} GB are free. This happens once; the next start needs no network."
    )


def _discard(name: str, cuda: bool) -> None:
    """Remove what a failed build left, but for the choice of the CUDA variant; keeps quiet about further trouble."""
    with suppress(OSError):
        definitions.stamp_file(name).unlink(missing_ok=True)
        shutil.rmtree(definitions.environment_folder(name), ignore_errors=True)
        if cuda:
            definitions.environment_folder(name).mkdir(exist_ok=True)
            definitions.write_stamp(name, {"cuda": cuda})


def find_interpreter(name: str) -> list[str]:
    """The command that starts a Python on which environment `name` can run; this one if it can.

    Raises InterpreterMissing if there is none.
    """
    newest = definitions.ENVIRONMENTS[name].newest_python
    if newest is None or sys.version_info[:2] <= newest:
        return [sys.executable]
    for command in _candidates(definitions.dotted(newest)):
        if _output([*command, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]) == definitions.dotted(newest):
            return command
    raise definitions.InterpreterMissing(
        f"the {name} environment needs Python {definitions.dotted(newest)}: {definitions.ENVIRONMENTS[name].contents} runs on no newer one, "
        f"and this is {definitions.dotted(sys.version_info[:2])}. No python{definitions.dotted(newest)} was found on PATH or in pyenv. "
        f"Install one, such as with `pyenv install {definitions.dotted(newest)}`, and run the command again."
    )


def _candidates(version: str) -> Iterator[list[str]]:
    if sys.platform == "win32":
        yield ["py", f"-{version}"]
    for folder in os.get_exec_path():
        found = shutil.which(f"python{version}", path=folder)
        if found:
            yield [found]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for path in sorted(pyenv.glob(f"versions/{version}*/bin/python{version}"), reverse=True):
        yield [str(path)]


def _create(interpreter: Sequence[str], folder: Path) -> None:
    """Make an empty environment, whichever way `interpreter` has: venv, virtualenv, or a virtualenv fetched by pip."""
    if _can_run(interpreter, "import ensurepip; ensurepip.version()"):
        _run([*interpreter, "-m", "venv", str(folder)], "creating the environment")
    elif _can_run(interpreter, "import virtualenv"):
        _run([*interpreter, "-m", "virtualenv", "--quiet", str(folder)], "creating the environment")
    elif _can_run(interpreter, "import pip"):
        # Debian's Python refuses a pip install into itself; a folder of its own is allowed.
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
    """Let pip install `packages` into environment `name`, with its progress on stderr and its log kept on failure."""
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
    """The last error lines of a pip log, or its last lines where none is marked as an error."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "  (there is no log)"
    plain = [re.sub(r"^\d[\d-]*T[\d:,]+ ", "", line) for line in lines]
    errors = [line for line in plain if line.startswith("ERROR") or "[Errno" in line]
    return "\n".join(f"  {line}" for line in (errors or plain)[-5:])


def _run(command: Sequence[str], what: str, variables: Mapping[str, str] | None = None) -> None:
    """Run `command` with its output on stderr; raises EnvironmentFailed, naming `what`, unless it exits with 0."""
    result = subprocess.run(
        command, env={**_plain_variables(), **(variables or {})}, stdin=subprocess.DEVNULL, stdout=2, check=False
    )
    if result.returncode != 0:
        raise definitions.EnvironmentFailed(f"{what} failed with exit code {result.returncode}: {' '.join(command)}")


def _output(command: Sequence[str]) -> str:
    try:
        result = subprocess.run(
            command, env=_plain_variables(), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except OSError:
        return ""
    return result.stdout.strip()


def _can_run(interpreter: Sequence[str], statements: str) -> bool:
    return _output([*interpreter, "-c", f"{statements}; print('yes')"]) == "yes"


def _plain_variables() -> dict[str, str]:
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
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
