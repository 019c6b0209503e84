"""Move a command into the environment that it needs, which is built first if it is not ready."""

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

# Set for the process that takes over, so that an environment that lacks a module cannot hand over to itself forever.
HANDED_OVER = "FINE_TUNING_HANDED_OVER"


def ensure(name: str, cuda: bool | None = None) -> Path:
    """Return the interpreter of an environment, which is built first unless it is ready.

    A ready environment costs a few milliseconds and no network.

    Args:
        name: The environment.
        cuda: Whether it is to be the CUDA variant; None keeps one that is ready, and builds the variant that was asked
            for last, or else the one for this machine (`definitions.variant_for_machine`).

    Returns:
        The path of the interpreter.

    Raises:
        EnvironmentFailed: The environment cannot be built, or is out of date while this process runs in it.
        InterpreterMissing: This machine lacks a Python that the environment can run on.
    """
    definitions.check_python_version()
    python = definitions.ready_python(name, cuda)
    if python is not None:
        if cuda is not None:
            definitions.note_choice(name, cuda)
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
                variant = definitions.variant_for_machine(name) if cuda is None else cuda
                python = build.build(name, variant, asked=cuda is not None)
    except OSError as error:
        raise definitions.EnvironmentFailed(f"cannot build the {name} environment: {error}") from error
    return python


def hand_over(command: str, backend: str | None, arguments: Sequence[str]) -> None:
    """Return if this interpreter has the modules that a command needs; else go on in an environment that has them.

    The other interpreter runs `python -m scripts.<command>`; its environment is built first if it is not ready. The
    working folder stays as it is, so that relative paths keep their meaning.

    Args:
        command: The name of the command, `run` for `python -m scripts.run`.
        backend: The backend whose environment is needed; None means the `tools` environment.
        arguments: The arguments of the command.

    Raises:
        SystemExit: With code 2 for an unknown backend, 1 if the environment cannot be had, and 130 when interrupted.
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
    # -P: a folder named common or scripts in the working folder must not be taken for this project's.
    run = [str(python), "-P", "-m", f"scripts.{command}", *arguments]
    replace_process(run, {**project_variables(), HANDED_OVER: name})


def missing_modules(backend: str | None) -> list[str]:
    """Return the modules that a command needs and this interpreter lacks.

    Args:
        backend: The backend of the command; None for a command that needs the modules of the report instead.

    Returns:
        The names of the modules.
    """
    base = [*definitions.BASE_MODULES, *(definitions.REPORT_MODULES if backend is None else ())]
    missing = [module for module in base if importlib.util.find_spec(module) is None]
    return missing if backend is None else missing + backends.missing_modules(backend)


def _check_loop(name: str, missing: Sequence[str]) -> None:
    """Raise EnvironmentFailed if this process was handed over to environment `name` and still lacks modules."""
    if os.environ.get(HANDED_OVER) == name:
        raise definitions.EnvironmentFailed(
            f"the {name} environment is marked as complete, but lacks {', '.join(missing)}. "
            f"Delete {definitions.environment_folder(name)} and run the command again, which builds it anew."
        )


def project_variables() -> dict[str, str]:
    """Return environment variables with which a process finds this checkout's packages from any working folder."""
    paths = [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(definitions.ROOT)
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(definitions.ROOT), *paths])}


def start_nox(arguments: Sequence[str]) -> NoReturn:
    """Go on as nox in the tools environment, which is built first if it is not ready.

    Args:
        arguments: The arguments of nox.

    Raises:
        SystemExit: With code 1 if the environment cannot be had, and 130 when interrupted.
    """
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
    """Go on as another command, in this very process.

    Args:
        command: The program and its arguments.
        variables: All environment variables of the command.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], list(command), dict(variables))
