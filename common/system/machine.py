"""Ask the machine for its cores, memory and time, and keep native code from printing or returning memory too soon."""

from __future__ import annotations

import ctypes
import datetime
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from common.system.errors import UserError


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def gibibytes(variable: str, default: float) -> int:
    """Return the bytes that an environment variable sets as a number of GiB.

    Args:
        variable: Name of the environment variable.
        default: Number of GiB where it is not set or is empty.

    Returns:
        The number in bytes, rounded down.

    Raises:
        UserError: The variable holds no number, or one outside 0 to 2**20.
    """
    text = os.environ.get(variable) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**20:
        raise UserError(f"{variable} = {text!r}: expected a number of GiB, such as {default:g}, or 0 for none")
    return int(number * 2**30)


# glibc's mallopt parameters M_TRIM_THRESHOLD and M_MMAP_MAX, which MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_MAX_ set.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed, up to 2 GiB of them, for the next that are wanted.

    Otherwise each goes back to Linux, which clears it anew for the next step: a tenth of a training step on a CPU.
    Nothing is done with another C library, or where MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_MAX_ is set.
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
    """Return the most bytes that this process has held in main memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def now() -> str:
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
