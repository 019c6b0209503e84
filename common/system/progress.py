"""A progress bar for work whose length is known, on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def tracked(items: Iterable[T], what: str, total: int, shown: bool) -> Iterable[T]:
    """Yield items while a bar shows how many have come.

    Args:
        items: The items.
        what: What is being done, in a few words.
        total: How many items there will be.
        shown: Whether a bar may be shown; without a terminal none is.

    Returns:
        The items.
    """
    console = Console(stderr=True)
    hidden = not (shown and console.is_terminal)
    return track(items, what, total=total, console=console, transient=True, disable=hidden)
