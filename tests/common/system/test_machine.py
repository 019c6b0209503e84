"""What the process asks of the C library."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Bytes of the address space that malloc has mapped apart for its blocks of 64 MiB, and what is left of them once freed.
PROGRAM = """
import ctypes, sys
from common.system.machine import keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
before = libc.sbrk(ctypes.c_ssize_t(0))
block = libc.malloc(64 * 2**20)
libc.free(block)
print(libc.sbrk(ctypes.c_ssize_t(0)) - before >= 64 * 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux' C library")
@pytest.mark.parametrize(
    ("arguments", "variables", "kept"),
    [(["keep"], {}, True), ([], {}, False), (["keep"], {"MALLOC_MMAP_MAX_": "65536"}, False)],
)
def test_freed_memory_stays_with_the_process(arguments, variables, kept) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    printed = subprocess.run(command, env={**own, **variables}, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(kept)
