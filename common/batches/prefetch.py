"""Compute results in threads before they are asked for."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, look_ahead: int
) -> Iterator[Result]:
    """Map a function over items in their order, computing results ahead in threads.

    Pillow gives up the interpreter lock while it decodes and resizes, so threads are enough.

    >>> list(prefetch(abs, [-1, 2, -3], workers=2, look_ahead=1))
    [1, 2, 3]

    Args:
        function: The function; threads call it at once.
        items: Its arguments.
        workers: Number of threads; with 0 each result is computed when it is asked for.
        look_ahead: Largest number of results that are computed early.

    Yields:
        The result of each item.
    """
    if workers == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque[Future[Result]] = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > look_ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
