"""What every command does around its own work: find its environment, and turn failures into messages and exit codes.

Runs in a bare interpreter until the right environment has taken over: the standard library only, at the top.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.environments.definitions import EnvironmentFailed, check_python_version, say
from scripts.environments.use import hand_over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

INTERRUPTED = 130
# The code that Python's documentation (signal, "Note on SIGPIPE") and rich have for it.
PIPE_CLOSED = 1


def start(
    command: str, main: Callable[[list[str]], int], backend_of: Callable[[list[str]], str | None] | None = None
) -> None:
    """Run `main` on the command line's arguments, in the environment of the backend that `backend_of` finds in them.

    Exits with `main`'s code, with 2 for bad input, 1 for a failed run or where nobody reads the output to its end, as
    before `| head`, and 130 after Ctrl-C.
    """
    with ended_by_closed_pipe():
        start_with(sys.argv[1:], command, main, backend_of)


def start_with(
    arguments: list[str],
    command: str,
    main: Callable[[list[str]], int],
    backend_of: Callable[[list[str]], str | None] | None,
) -> None:
    """`start`, with given arguments, and with a BrokenPipeError where nobody reads the output."""
    try:
        check_python_version()
        backend = backend_of(arguments) if backend_of else None
    except EnvironmentFailed as failed:
        say(f"error: {failed}")
        sys.exit(1)
    hand_over(command, backend, arguments)
    from common.system.errors import RunError, UserError
    from scripts.run.launch import tell

    interrupt_once()
    try:
        sys.exit(main(arguments))
    except (UserError, RunError) as error:
        tell(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        tell("\nInterrupted.", interrupted=True)
        sys.exit(INTERRUPTED)


@contextmanager
def ended_by_closed_pipe() -> Iterator[None]:
    """End the command without a message once the reader of its output is gone."""
    try:
        try:
            yield
        finally:
            # Not at the interpreter's end, which cannot but complain.
            sys.stdout.flush()
    except BrokenPipeError:
        closed = next((stream for stream in (sys.stdout, sys.stderr) if lacks_reader(stream)), None)
        if closed is None:
            raise
        # What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), closed.fileno())
        sys.exit(PIPE_CLOSED)


def lacks_reader(stream: TextIO) -> bool:
    """Whether `stream` is a pipe that nobody reads any more; writes an empty line to find out."""
    try:
        print(file=stream, flush=True)
    except BrokenPipeError:
        return True
    return False


def interrupt_once() -> None:
    """Let SIGTERM end a command as Ctrl-C does, so that a run leaves a record that says so; but not disturb that where
    both come, as to the processes of a comparison."""
    told = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal told
        if told and number == signal.SIGTERM:
            return
        told = True
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        # A shell's background job ignores Ctrl-C, and goes on doing so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def value_of(arguments: list[str], option: str) -> str | None:
    """The value of `--option value` or `--option=value`, the last one if there are several; None without."""
    value = None
    for position, argument in enumerate(arguments):
        if argument == option and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(f"{option}="):
            value = argument.split("=", 1)[1]
    return value


def wants_help(arguments: list[str]) -> bool:
    """Whether the arguments ask for the list of options only."""
    return any(option in arguments for option in ("-h", "--help", "--help-all"))


def backend_wanted(arguments: list[str]) -> str | None:
    """The backend that `--backend`, else `--preset`, names; torch without; None where no framework is needed."""
    from common.spec.presets import preset_names, read_preset

    if wants_help(arguments) or "--list-presets" in arguments:
        return None
    preset = value_of(arguments, "--preset")
    in_preset = read_preset(preset)["spec"] if preset in preset_names() else {}
    backend = value_of(arguments, "--backend")
    return in_preset.get("backend", "torch") if backend is None else backend
