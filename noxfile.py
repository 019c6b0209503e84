"""The project's chores. `python3 noxfile.py [nox arguments]` needs nothing but Python 3.11; `nox` does the same.

The environments are those of `scripts/environments`: built once, shared by all sessions and commands. So no
session here has one of nox's own, and an `environment-<name>` session is only for building one by itself:

    python3 noxfile.py                                      lint, types, all tests, a short crosscheck
    python3 noxfile.py -s environment-jax -- --cuda         the CUDA variant, which later sessions keep
    python3 noxfile.py -s tests-torch -- -k freeze          some tests of one backend
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

import backends  # noqa: E402
from scripts.cli import sharing  # noqa: E402
from scripts.environments import definitions, use  # noqa: E402

if __name__ == "__main__":
    use.start_nox(sys.argv[1:])

import nox  # noqa: E402

nox.options.sessions = [
    "lint",
    "types",
    "tests-common",
    "tests-backends",
    "crosscheck-short",
]
# Two processes, if there are two cores: the tests' tensors are too small for threads, and TensorFlow takes GB for each.
IN_PARALLEL = ("-n", "auto", "--maxprocesses", "2")
# Backends, and which half of their test files, in the order in which two processes at a time are done soonest.
LONGEST_FIRST = (
    ("keras", 1), ("torch", 0), ("keras", 0), ("jax", 1), ("mxnet", 1), ("jax", 0), ("torch", 1), ("mxnet", 0),
)  # fmt: skip
# pytest's exit code for a run without a test.
NO_TESTS = 5
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


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Check everything on this machine's GPU, in the environments of all backends: -- --output FOLDER ..."""
    python = python_of(session, "tools")
    with session.chdir(session.invoked_from):
        arguments = ["-P", "-m", "scripts.gpu_check", "--environments", *session.posargs]
        session.run(python, *arguments, env=use.project_variables(), external=True)


@nox.session(name="crosscheck-short", venv_backend="none")
def crosscheck_short(session: nox.Session) -> None:
    """Check in a few minutes that all backends compute the same."""
    command = ["-m", "scripts.crosscheck", *SHORT_CROSSCHECK, "--output", session.create_tmp()]
    session.run(python_of(session, "tools"), *command, external=True)


def tests_of_backend(name: str, *arguments: str) -> list[str]:
    """Return pytest's arguments for tests of a backend; without a path in `arguments` these are all."""
    paths = [] if any(Path(argument).exists() for argument in arguments) else ["tests/backends"]
    return ["-m", "pytest", *paths, "--backend", name, *arguments]


def halves(folder: str) -> list[list[str]]:
    """Split the test files of a folder in two, so that two processes share the tests of a backend."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("test_*.py"))
    return [files[::2], files[1::2]]


def variables_of_tests(session: nox.Session) -> dict[str, str]:
    """Return the environment variables of a backend's tests."""
    return {
        # The tests' tensors are small: a second thread costs more than it brings, most on a busy machine.
        "OMP_NUM_THREADS": "1",
        # What one test, or a process that it starts, has compiled serves the others.
        "JAX_COMPILATION_CACHE_DIR": session.create_tmp(),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@nox.session(name="tests-backends", venv_backend="none")
def tests_backends(session: nox.Session) -> None:
    """Test all backends, each in its environment: the test files in two halves, two processes at a time."""
    pythons = {}
    for name in backends.NAMES:
        try:
            pythons[name] = str(use.ensure(name))
        except definitions.InterpreterMissing as missing:
            session.warn(str(missing))
        except definitions.EnvironmentFailed as broken:
            session.error(str(broken))
    variables = {**os.environ, **variables_of_tests(session)}

    def run(name: str, files: list[str]) -> tuple[str, str, int]:
        command, job = [pythons[name], *tests_of_backend(name, *files, *session.posargs)], free.get()
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, env=variables, **options) as process:
            # Frameworks take as many threads as there are cores for them.
            sharing.bind(process.pid, sharing.cores_of(job, 2))
            output, _ = process.communicate()
        free.put(job)
        return name, output, process.returncode

    failed: list[str] = []
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for job in range(2):
        free.put(job)
    # A file's tests share what a framework has compiled, so no file is split.
    with ThreadPoolExecutor(2) as pool:
        files = halves("tests/backends")
        order = [(name, files[half]) for name, half in LONGEST_FIRST if name in pythons]
        for done in as_completed([pool.submit(run, *work) for work in order]):
            name, output, code = done.result()
            session.log(f"tests of {name}:")
            print(output, flush=True)
            # With -k, the tests that are asked for may all be in the other half.
            failed += [name] if code and not (code == NO_TESTS and session.posargs) else []
    if failed:
        session.error(f"tests failed: {', '.join(failed)}")


def add_sessions_of_backend(name: str) -> None:
    """Define `tests-<name>`."""

    def tests(session: nox.Session) -> None:
        command = tests_of_backend(name, *IN_PARALLEL, *session.posargs)
        session.run(python_of(session, name), *command, env=variables_of_tests(session), external=True)

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
    """Define the session `name`, which runs `scripts.<name>`, with underscores for hyphens."""

    def command(session: nox.Session) -> None:
        run_command(session, name.replace("-", "_"))

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
add_command_session("convert", "Turn a weights file of another program into one for --weights: -- model.pth ...")
add_command_session("check-data", "Say what is wrong with a folder of photographs: -- my-photos ...")
