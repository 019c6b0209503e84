"""The project's chores. `python3 noxfile.py [nox arguments]` needs nothing but Python 3.11; `nox` does the same.

The environments are those of `scripts/environments`: built once, shared by all sessions and commands. So no
session here has one of nox's own, and an `environment-<name>` session is only for building one by itself:

    python3 noxfile.py                                      lint, types and all tests
    python3 noxfile.py -s environment-jax -- --cuda         the CUDA variant, which later sessions keep
    python3 noxfile.py -s tests-torch -- -k freeze          some tests of one backend
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

import backends  # noqa: E402
from scripts.environments import definitions, use  # noqa: E402

if __name__ == "__main__":
    use.start_nox(sys.argv[1:])

import nox  # noqa: E402

nox.options.sessions = [
    "lint",
    "types",
    "tests-common",
    *(f"tests-{name}" for name in backends.NAMES),
    "crosscheck-short",
]
# Two processes, if there are two cores: the tests' tensors are too small for threads, and TensorFlow takes GB for each.
IN_PARALLEL = ("-n", "auto", "--maxprocesses", "2")
# Enough to see every definition, in a few minutes.
SHORT_CROSSCHECK = ("--short", "--image-size", "72", "--batch-size", "8", "--steps", "6", "--train-limit", "50")


def python_of(session: nox.Session, name: str) -> str:
    """The interpreter of environment `name`, built first if need be; skips the session if no Python can run it."""
    try:
        return str(use.ensure(name))
    except definitions.InterpreterMissing as missing:
        session.skip(str(missing))
    except definitions.EnvironmentFailed as failed:
        session.error(str(failed))


def run_command(session: nox.Session, command: str) -> None:
    """Run `scripts.<command>` with the session's arguments, from where nox was called; it finds its own environment."""
    with session.chdir(session.invoked_from):
        arguments = ["-m", f"scripts.{command}", *session.posargs]
        session.run(sys.executable, "-P", *arguments, env=use.project_variables(), external=True)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style and format (ruff), and that imports point down through the rooms (import-linter)."""
    python = python_of(session, "tools")
    session.run(python, "-m", "ruff", "check", ".", external=True)
    session.run(python, "-m", "ruff", "format", "--check", ".", external=True)
    session.run(str(Path(python).with_name("lint-imports")), external=True)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check the types (mypy)."""
    session.run(python_of(session, "tools"), "-m", "mypy", external=True)


@nox.session(name="tests-common", venv_backend="none")
def tests_common(session: nox.Session) -> None:
    """Test what knows no framework, and run the examples in its docstrings."""
    folders = ("tests/test_layout.py", "tests/common", "tests/scripts", "tests/browser")
    command = ["-m", "pytest", *IN_PARALLEL, *folders, *session.posargs]
    session.run(python_of(session, "tools"), *command, external=True)
    if not session.posargs:
        examples = ["-m", "pytest", "-q", "--doctest-modules", "common", "--ignore-glob=*/__main__.py"]
        session.run(python_of(session, "tools"), *examples, external=True)


@nox.session(name="crosscheck-short", venv_backend="none")
def crosscheck_short(session: nox.Session) -> None:
    """Check in a few minutes that all backends compute the same."""
    command = ["-m", "scripts.crosscheck", *SHORT_CROSSCHECK, "--output", session.create_tmp()]
    session.run(python_of(session, "tools"), *command, external=True)


def add_sessions_of_backend(name: str) -> None:
    """Define `tests-<name>`."""

    def tests(session: nox.Session) -> None:
        command = ["-m", "pytest", *IN_PARALLEL, "tests/backends", "--backend", name, *session.posargs]
        # The tests' tensors are small: a second thread costs more than it brings, most on a busy machine.
        session.run(python_of(session, name), *command, env={"OMP_NUM_THREADS": "1"}, external=True)

    tests.__doc__ = f"Test the {name} backend in its environment."
    nox.session(name=f"tests-{name}", venv_backend="none")(tests)


def add_environment_session(name: str) -> None:
    """Define `environment-<name>`."""

    def environment(session: nox.Session) -> None:
        unknown = set(session.posargs) - {"--cuda", "--no-cuda"}
        if unknown:
            session.error(f"unknown arguments: {', '.join(sorted(unknown))}; there are --cuda and --no-cuda")
        cuda = True if "--cuda" in session.posargs else False if "--no-cuda" in session.posargs else None
        try:
            python = use.ensure(name, cuda=cuda)
        except definitions.EnvironmentFailed as failed:
            session.error(str(failed))
        session.log(f"{python} is ready")

    environment.__doc__ = f"Build the {name} environment unless it is ready; with -- --cuda its CUDA variant."
    nox.session(name=f"environment-{name}", venv_backend="none")(environment)


def add_command_session(name: str, summary: str) -> None:
    """Define the session `name`, which runs `scripts.<name>`."""

    def command(session: nox.Session) -> None:
        run_command(session, name)

    command.__doc__ = summary
    nox.session(name=name, venv_backend="none")(command)


for _name in backends.NAMES:
    add_sessions_of_backend(_name)
for _name in definitions.ENVIRONMENTS:
    add_environment_session(_name)
add_command_session("run", "Run the experiment: -- --backend torch ...")
add_command_session("sweep", "Vary the experiment: -- --vary learning_rate=1e-5..1e-1:log ...")
add_command_session("compare", "Run all backends with several seeds and leave one page: -- --preset demo --seeds 3 ...")
add_command_session("crosscheck", "Check that all backends compute the same: -- ...")
add_command_session("bench", "Measure one framework against the chapter's own way: -- --backend torch ...")
