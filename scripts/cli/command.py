"""Start and end a command: find its environment, and turn failures into messages and exit codes.

This runs in a bare interpreter until the right environment has taken over, so it imports only the standard library at
the top.
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
# Python's documentation (signal, "Note on SIGPIPE") and rich exit with this code.
PIPE_CLOSED = 1


def start(
    command: str, main: Callable[[list[str]], int], backend_of: Callable[[list[str]], str | None] | None = None
) -> None:
    """Run a command on the process's arguments, in the environment of the backend that they name.

    Args:
        command: The name of the command, `run` for `python -m scripts.run`.
        main: Does the work: takes the arguments and returns the exit code.
        backend_of: Returns the backend that the arguments name, or None for the `tools` environment, which is also
            taken without this function.

    Raises:
        SystemExit: Always. The code is that of `main`, 2 for bad input, 1 for a failed run or where nobody reads the
            output to its end (as with `| head`), and 130 after Ctrl-C.
    """
    with ended_by_closed_pipe():
        start_with(sys.argv[1:], command, main, backend_of)


def start_with(
    arguments: list[str],
    command: str,
    main: Callable[[list[str]], int],
    backend_of: Callable[[list[str]], str | None] | None,
) -> None:
    """Run a command as `start` does, but on given arguments, and let a BrokenPipeError pass.

    Args:
        arguments: The arguments of the command.
        command: As for `start`.
        main: As for `start`.
        backend_of: As for `start`.

    Raises:
        SystemExit: As for `start`.
        BrokenPipeError: Nobody reads the output any more.
    """
    try:
        check_python_version()
        backend = backend_of(arguments) if backend_of else None
    except EnvironmentFailed as failed:
        say(f"error: {failed}")
        sys.exit(1)
    hand_over(command, backend, arguments)
    from common.system.errors import RunError, UserError
    from scripts.cli.messages import tell

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
    """End the command without a message, with exit code 1, once the reader of its output is gone."""
    try:
        try:
            yield
        finally:
            # Flush here: a failure at the interpreter's end would always print a complaint.
            sys.stdout.flush()
    except BrokenPipeError:
        closed = next((stream for stream in (sys.stdout, sys.stderr) if lacks_reader(stream)), None)
        if closed is None:
            raise
        # Discard what is still buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), closed.fileno())
        sys.exit(PIPE_CLOSED)


def lacks_reader(stream: TextIO) -> bool:
    """Return whether a stream is a pipe that nobody reads any more; print an empty line to find out."""
    try:
        print(file=stream, flush=True)
    except BrokenPipeError:
        return True
    return False


def interrupt_once() -> None:
    """Let SIGTERM end a command as Ctrl-C does, so that an interrupted run leaves a record that says so.

    A SIGTERM that follows another signal is ignored: where both come, as to the processes of a comparison, the second
    must not disturb the writing of that record.
    """
    told = False

    def interrupt(number: int, frame: object) -> None:
        """Raise KeyboardInterrupt, unless this is a SIGTERM after another signal."""
        nonlocal told
        if told and number == signal.SIGTERM:
            return
        told = True
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        # A background job of a shell ignores Ctrl-C, and must go on ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
