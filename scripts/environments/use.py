"""Moving a command into the environment that it needs, which is built first if need be."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import backends

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
from scripts.environments import definitions

# Set for the process that takes over, so that an environment that lacks something cannot hand over to itself forever.
HANDED_OVER = "FINE_TUNING_HANDED_OVER"


def ensure(name: str, cuda: bool | None = None) -> Path:
    """The interpreter of environment `name`, which is built first unless it is ready.

    `cuda` None keeps the variant that was built last. A ready environment costs a few milliseconds and no network.
    Raises EnvironmentFailed, or InterpreterMissing where this machine lacks a Python that the environment can run on.
    """
    definitions.check_python_version()
    python = definitions.ready_python(name, cuda)
    if python is not None:
        return python
    if Path(sys.prefix).resolve() == definitions.environment_folder(name).resolve():
        raise definitions.EnvironmentFailed(
            f"the {name} environment is out of date, and this process runs in it, so it cannot replace it. "
            "Start again from outside: python3 noxfile.py"
        )
    from scripts.environments import build

    try:
        definitions.environment_folder(name).parent.mkdir(exist_ok=True)
        with build.build_lock(name):
            # Another process may have built it while this one waited.
            python = definitions.ready_python(name, cuda)
            if python is None:
                python = build.build(name, definitions.read_stamp(name).get("cuda") is True if cuda is None else cuda)
    except OSError as error:
        raise definitions.EnvironmentFailed(f"cannot build the {name} environment: {error}") from error
    return python


def hand_over(command: str, backend: str | None, arguments: Sequence[str]) -> None:
    """Return if this interpreter has what `command` needs; else go on as `python -m scripts.<command>` in one that has.

    Without a backend the `tools` environment is meant. The environment is built first if need be. The working folder
    stays as it is, so that relative paths keep their meaning. Exits with code 2 for an unknown backend, 1 if the
    environment is not to be had and 130 when interrupted.
    """
    try:
        definitions.check_python_version()
        name = backend or "tools"
        if name not in definitions.ENVIRONMENTS:
            definitions.say(f"error: there is no backend {name!r}; choose one of {', '.join(backends.NAMES)}")
            sys.exit(2)
        missing = missing_modules(backend)
        if not missing:
            os.environ.pop(HANDED_OVER, None)
            return
        _check_loop(name, missing)
        python = ensure(name)
    except definitions.EnvironmentFailed as failed:
        definitions.say(f"error: {failed}")
        sys.exit(1)
    except KeyboardInterrupt:
        definitions.say("\nInterrupted; the environment is not built. The next start begins it anew.")
        sys.exit(130)
    # -P: a folder of the user's called common or scripts must not be taken for this project's.
    run = [str(python), "-P", "-m", f"scripts.{command}", *arguments]
    replace_process(run, {**project_variables(), HANDED_OVER: name})


def missing_modules(backend: str | None) -> list[str]:
    """The modules that a command for `backend` (None: the tools and the report) needs and this interpreter lacks."""
    base = [*definitions.BASE_MODULES, *(definitions.REPORT_MODULES if backend is None else ())]
    missing = [module for module in base if importlib.util.find_spec(module) is None]
    return missing if backend is None else missing + backends.missing_modules(backend)


def _check_loop(name: str, missing: Sequence[str]) -> None:
    if os.environ.get(HANDED_OVER) == name:
        raise definitions.EnvironmentFailed(
            f"the {name} environment is marked as complete, but lacks {', '.join(missing)}. "
            f"Delete {definitions.environment_folder(name)} and run the command again, which builds it anew."
        )


def project_variables() -> dict[str, str]:
    """The environment variables of a process that is to find this checkout's packages from any working folder."""
    paths = [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(definitions.ROOT)
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(definitions.ROOT), *paths])}


def start_nox(arguments: Sequence[str]) -> NoReturn:
    """Go on as nox with `arguments` in the tools environment, built first if need be; exits like `hand_over`."""
    try:
        python = ensure("tools")
    except definitions.EnvironmentFailed as failed:
        definitions.say(f"error: {failed}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    replace_process(
        [str(python), "-m", "nox", "-f", str(definitions.ROOT / "noxfile.py"), *arguments], dict(os.environ)
    )


def replace_process(command: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    """Go on as `command`: in this very process where the system can do that, else as its parent with its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        import subprocess

        sys.exit(subprocess.run(command, env=variables, check=False).returncode)
    os.execve(command[0], list(command), dict(variables))
