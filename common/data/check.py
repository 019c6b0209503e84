"""Read every image file once before training, and say of all what there is to say, kind by kind."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.data import colours
from common.data.formats import silence_libtiff
from common.data.images import Decoding, Facts, UnreadableImage, decode
from common.system.progress import tracked

MAX_LISTED = 20
"""The most files that a message lists, unless there are more kinds of fault: of each at least one is listed."""
MAX_NAMED = 3
"""The most files that a remark names."""


def check(
    files: Sequence[tuple[Path, str]], short_side: int | None, decoding: Decoding, progress: bool
) -> tuple[list[str | None], tuple[str, ...]]:
    """Decode files, several at once.

    Args:
        files: Path and name of each.
        short_side: The short side in pixels to which larger images will be reduced; None for images as they are.
        decoding: How the user wants files to be read.
        progress: Whether a progress bar may be shown.

    Returns:
        For each file the reason why it cannot be read, None for one that can be; and sentences on those that can.
    """
    silence_libtiff()
    warned = _Warned()

    def read(file: tuple[Path, str]) -> Facts | str:
        path, name = file
        try:
            with warned.while_reading(name):
                return decode(path, short_side, decoding)[1]
        except UnreadableImage as error:
            return error.reason

    with warned.collected(), ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        found = list(tracked(pool.map(read, files), "checking images", len(files), progress))
    good = {name: facts for (_, name), facts in zip(files, found, strict=True) if isinstance(facts, Facts)}
    reasons = [facts if isinstance(facts, str) else None for facts in found]
    return reasons, tuple(remarks(good, warned.found, decoding))


def remarks(good: Mapping[str, Facts], warned: Mapping[str, Sequence[str]], decoding: Decoding) -> list[str]:
    """Return sentences on files that were read although there is something to say of them.

    Args:
        good: Name of each file that was read -> what there is to say of it.
        warned: A warning -> the names of the files that it was about.
        decoding: How the user wants files to be read.
    """
    said = []
    if short := [name for name, facts in good.items() if facts.cut_short]:
        said.append(f"{_count(short, 'JPEG')} without their end, read as far as they go: {_named(short)}")
    if dark := {name: facts.dark for name, facts in good.items() if facts.dark is not None}:
        largest, full = max(dark.values()), decoding.image_range or colours.FULL
        said.append(
            f"{_count(dark, 'image')} far darker than the range of their values, of which none is above {largest:,} of "
            f"{full:,}; if they look black, give --image-range {2 ** largest.bit_length() - 1}: {_named(list(dark))}"
        )
    if ignored := {name: facts.ignored for name, facts in good.items() if facts.ignored}:
        chunks = sorted({chunk for found in ignored.values() for chunk in found})
        said.append(
            f"{_count(ignored, 'PNG')} with damaged or huge extra data ({', '.join(chunks)}), read without it: "
            f"{_named(list(ignored))}"
        )
    for text, names in warned.items():
        if kept := [name for name in dict.fromkeys(names) if name in good]:
            said.append(f"{_count(kept, 'image')} with a warning, {text!r}: {_named(kept)}")
    return said


def describe(problems: Sequence[tuple[str, str]], top: Path) -> str:
    """Return the message on files that cannot be used: each kind of fault, with some of its files.

    Args:
        problems: Name of a file, and the reason.
        top: The folder that they are in.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, reason in problems:
        kinds.setdefault(re.sub(r"\d[\d,]*", "N", reason), []).append((name, reason))
    each = max(1, MAX_LISTED // len(kinds))
    lines = [f"{_count(problems, 'file')} in {top} can't be used as images:"]
    for found in kinds.values():
        lines += [f"  {name}: {reason}" for name, reason in found[:each]]
        if len(found) > each:
            lines.append(f"  ... and {len(found) - each:,} more of this kind")
    return "\n".join([*lines, "Mend or remove them, or leave them out with --bad-images skip."])


def _count(found: Sequence[Any] | Mapping[str, Any], noun: str) -> str:
    return f"{len(found):,} {noun}{'s' * (len(found) != 1)}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


class _Warned:
    """Collects what Python is warned of while files are read in threads, with the files' names."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        """A warning -> the names of the files that it was about."""
        self._thread = threading.local()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect the warnings of all threads, until the end of the context."""
        with warnings.catch_warnings():
            shown = warnings.showwarning

            def show(message: Warning | str, *others: Any, **named: Any) -> None:
                name = getattr(self._thread, "name", None)
                if name is None:
                    shown(message, *others, **named)
                else:
                    self.found.setdefault(str(message), []).append(name)

            warnings.simplefilter("always")
            warnings.showwarning = show
            yield

    @contextmanager
    def while_reading(self, name: str) -> Iterator[None]:
        """Collect this thread's warnings under the name of a file."""
        self._thread.name = name
        try:
            yield
        finally:
            self._thread.name = None
