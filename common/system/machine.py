"""What there is to know, and to keep quiet, of the machine and the process."""

from __future__ import annotations

import ctypes
import datetime
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from common.system.errors import UserError


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


# The numbers of glibc's mallopt for what its MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_MAX_ set.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed, up to 2 GiB of them, for the next that are wanted.

    Otherwise each goes back to Linux, which clears it anew for the next step: a tenth of a training step on a CPU. Does
    nothing with another C library, or where one of glibc's own variables is set.
    """
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"} & os.environ.keys():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


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


def peak_memory() -> int:
    """Most bytes this process held in main memory."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
