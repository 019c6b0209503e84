"""Find pictures that are in a data set more than once: the same file, the same pixels, or nearly the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from common.audit.pictures import Picture
from common.data.duplicates import HASH_BITS

Kind = Literal["same file", "same pixels", "same picture", "cropped", "mirrored"]

# Of HASH_BITS. Among 2.7 million pairs of photographs the nearest two that are not the same differed in 70 bits. Copies
# saved anew, resized or mirrored differed in at most 10, and of 400 cropped ones 386 in at most 64; docs/data-check.md.
LARGEST_DISTANCE = 64
# Rows of the matrix of distances that are in memory at once.
ROWS = 1024


@dataclass(frozen=True)
class Pair:
    """Two pictures that show the same: their indices, how they are alike, and in how many bits their hashes differ."""

    first: int
    second: int
    kind: Kind
    distance: int


@dataclass(frozen=True)
class Group:
    """Pictures that pairs hold together; the indices rise."""

    members: tuple[int, ...]
    pairs: tuple[Pair, ...]


def find_pairs(pictures: Sequence[Picture], largest_distance: int = LARGEST_DISTANCE) -> list[Pair]:
    """Find all pairs of pictures that show the same.

    Of files with the same bytes, and then of those with the same pixels, only the first is compared with others.

    Args:
        pictures: The pictures.
        largest_distance: In how many of HASH_BITS the hashes of near-duplicates may differ.

    Returns:
        The pairs, by their indices.
    """
    pairs, rest = _equal(range(len(pictures)), [picture.file_digest for picture in pictures], "same file")
    more, rest = _equal(rest, [picture.pixel_digest for picture in pictures], "same pixels")
    return sorted([*pairs, *more, *_near(pictures, rest, largest_distance)], key=lambda pair: (pair.first, pair.second))


def _equal(candidates: Iterable[int], digests: Sequence[str], kind: Kind) -> tuple[list[Pair], list[int]]:
    """Pair every candidate with the first of its digest; return the pairs and the candidates that came first."""
    first: dict[str, int] = {}
    pairs = []
    for index in candidates:
        leader = first.setdefault(digests[index], index)
        if leader != index:
            pairs.append(Pair(leader, index, kind, 0))
    return pairs, list(first.values())


def _near(pictures: Sequence[Picture], candidates: Sequence[int], largest_distance: int) -> list[Pair]:
    """Pair the candidates whose hashes nearly agree: one's whole or mirrored picture with the other's whole or part."""
    candidates = [index for index in candidates if len(pictures[index].hashes)]
    if not candidates:
        return []
    # As -1 and 1 the product of two hashes is HASH_BITS less twice their distance.
    signs = np.stack([pictures[index].hashes for index in candidates]).astype(np.float32) * 2 - 1
    wanted = HASH_BITS - 2 * largest_distance
    best: dict[tuple[int, int], tuple[int, Kind]] = {}
    for query, view in _comparisons(signs.shape[1]):
        kind: Kind = "mirrored" if query == 1 else "same picture" if view == 0 else "cropped"
        for start in range(0, len(candidates), ROWS):
            products = signs[start : start + ROWS, query] @ signs[:, view].T
            for row, column in np.argwhere(products >= wanted):
                one, other = candidates[start + row], candidates[column]
                if one != other:
                    distance = (HASH_BITS - int(products[row, column])) // 2
                    key = (min(one, other), max(one, other))
                    best[key] = min(best.get(key, (HASH_BITS, kind)), (distance, kind))
    return [Pair(*key, kind, distance) for key, (distance, kind) in best.items()]


def _comparisons(views: int) -> list[tuple[int, int]]:
    """Return which hash of one picture is held against which of another: whole or mirrored against whole or part."""
    return [(query, view) for query in (0, 1) for view in (0, *range(2, views))]


def find_groups(count: int, pairs: Sequence[Pair]) -> list[Group]:
    """Join the pairs that share pictures.

    Args:
        count: How many pictures there are.
        pairs: The pairs.

    Returns:
        Groups of at least two pictures, by their first.
    """
    owner = group_numbers(count, pairs)
    members, held = defaultdict(list), defaultdict(list)
    for index in sorted({index for pair in pairs for index in (pair.first, pair.second)}):
        members[owner[index]].append(index)
    for pair in pairs:
        held[owner[pair.first]].append(pair)
    return [Group(tuple(members[number]), tuple(held[number])) for number in members]


def group_numbers(count: int, pairs: Sequence[Pair]) -> list[int]:
    """Return for each picture the number of its group; a picture without a duplicate has one of its own."""
    rows, columns = [pair.first for pair in pairs], [pair.second for pair in pairs]
    graph = coo_matrix((np.ones(len(pairs), bool), (rows, columns)), shape=(count, count))
    numbers: list[int] = connected_components(graph, directed=False)[1].tolist()
    return numbers
