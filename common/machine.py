"""What there is to know, and to keep quiet, of the machine and the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import UserError


def available_cores() -> int:
    """The cores that this process may use where the operating system tells, else all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gibibytes(variable: str, default: float) -> int:
    """Bytes that an environment variable sets as a number of GiB; raises UserError for one that is no number."""
    text = os.environ.get(variable) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**20:
        raise UserError(f"{variable} = {text!r}: expected a number of GiB, such as {default:g}, or 0 for none")
    return int(number * 2**30)


@contextmanager
def without_messages() -> Iterator[None]:
    """Drop what native code writes to stderr, such as TensorFlow's greetings; Python's exceptions pass."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
