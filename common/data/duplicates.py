"""Find images that are in a data set more than once: the same file, or nearly the same picture."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import imagehash
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from common.data.images import UnreadableImage, open_rgb
from common.system.caches import Cache, NoRoom, cache_folder
from common.system.files import write_atomically
from common.system.progress import tracked

# Counts up when the hash of a picture changes.
VERSION = 2
HASH_SIDE = 16
HASH_BITS = HASH_SIDE**2
MAX_DISTANCE = 64
"""Of HASH_BITS; docs/data.md has the distances of pictures that are copies of one another and of others."""

# A picture with less between its darkest and its lightest value shows nothing that a hash could tell.
MIN_CONTRAST = 8
# The grey square that a picture is first reduced to, so that a large one is resized only once.
GREY_SIDE = 256
# Rows of the matrix of distances that are in memory at once.
ROWS = 1024


def same_files(first: Sequence[Path], second: Sequence[Path]) -> list[tuple[int, int]]:
    """Find the files of one list that are in another too, byte for byte; only files of equal size are read.

    Args:
        first: Files.
        second: Files.

    Returns:
        For each file of `second` that is in `first` the indices in both, of the first such file.
    """
    sizes: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(first):
        with suppress(OSError):
            sizes[path.stat().st_size].append(index)
    digests: dict[Path, bytes] = {}
    pairs: list[tuple[int, int]] = []
    for index, path in enumerate(second):
        with suppress(OSError):
            candidates = sizes.get(path.stat().st_size, [])
            match = next((one for one in candidates if _same(first[one], path, digests)), None)
            if match is not None:
                pairs.append((match, index))
    return pairs


def groups(paths: Sequence[Path], progress: bool = True) -> list[int]:
    """Give images that show the same, or nearly, the same number.

    Copies are found by imagehash's pHash, whatever their format, size or quality; a damaged image is like no other.
    Hashes are kept, so that the next run need not decode every image.

    Args:
        paths: The images.
        progress: Whether a progress bar may be shown.

    Returns:
        The number of each image's group.
    """
    marks = [_mark(path) for path in paths]
    key = "\n".join([f"{VERSION} {MAX_DISTANCE} {PIL.__version__}", *marks])
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    cache = Cache(cache_folder() / "similar")
    entry = cache.find(name)
    kept = _read(entry, len(paths)) if entry else None
    if kept is not None:
        return kept
    numbers = _grouped(paths, progress)
    # On a full disk nothing is kept.
    with suppress(NoRoom, OSError):
        cache.get(
            name,
            lambda folder: write_atomically(folder / "groups.json", json.dumps(numbers).encode()),
            whole=lambda entry: _read(entry, len(paths)) is not None,
        )
    return numbers


def _read(entry: Path, count: int) -> list[int] | None:
    try:
        numbers = [int(number) for number in json.loads((entry / "groups.json").read_text())]
    except (OSError, ValueError, TypeError):
        return None
    return numbers if len(numbers) == count else None


def _mark(path: Path) -> str:
    status = os.stat(path)
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def _grouped(paths: Sequence[Path], progress: bool) -> list[int]:
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        found = list(tracked(pool.map(_hash_or_fault, paths), "looking for near-duplicates", len(paths), progress))
    hashed = [index for index, bits in enumerate(found) if isinstance(bits, np.ndarray)]
    hashes = np.array([found[index] for index in hashed], np.bool_).reshape(-1, HASH_BITS)
    pairs = [(hashed[one], hashed[two]) for one, two in near(hashes)]
    whole = [index for index, bits in enumerate(found) if not isinstance(bits, UnreadableImage)]
    files = [paths[index] for index in whole]
    pairs += [(whole[one], whole[two]) for one, two in same_files(files, files)]
    rows, columns = [one for one, _ in pairs], [two for _, two in pairs]
    graph = coo_matrix((np.ones(len(pairs), np.bool_), (rows, columns)), shape=(len(paths), len(paths)))
    numbers: list[int] = connected_components(graph, directed=False)[1].tolist()
    return numbers


def _hash_or_fault(path: Path) -> NDArray[np.bool_] | UnreadableImage | None:
    try:
        return picture_hash(path)
    except UnreadableImage as error:
        return error


def picture_hash(path: Path) -> NDArray[np.bool_] | None:
    """Return the pHash of an image, None for one of a single colour; UnreadableImage is raised for a damaged one.

    Args:
        path: The image.

    Returns:
        The bits of the hash, (HASH_BITS,).
    """
    grey = grey_square(open_rgb(path, GREY_SIDE))
    return None if grey is None else hash_bits(grey)


def grey_square(image: Image.Image) -> Image.Image | None:
    """Return a picture squashed to a grey square of GREY_SIDE pixels, or None for one of a single colour."""
    grey = image.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    darkest, lightest = grey.getextrema()
    return None if lightest - darkest < MIN_CONTRAST else grey  # type: ignore[operator]


def hash_bits(grey: Image.Image) -> NDArray[np.bool_]:
    """Return the pHash of a grey picture, (HASH_BITS,)."""
    bits: NDArray[np.bool_] = imagehash.phash(grey, hash_size=HASH_SIDE).hash.ravel()
    return bits


def near(hashes: NDArray[np.bool_], limit: int = MAX_DISTANCE) -> list[tuple[int, int]]:
    """Find the pairs of hashes that differ in few bits.

    Args:
        hashes: The hashes, (N, HASH_BITS).
        limit: In how many bits two may differ.

    Returns:
        The indices of each pair, the smaller first.
    """
    # As -1 and 1 the product of two hashes is HASH_BITS less twice their distance.
    signs = hashes.astype(np.float32) * 2 - 1
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(signs), ROWS):
        products = signs[start : start + ROWS] @ signs[start:].T
        rows, columns = np.nonzero(products >= HASH_BITS - 2 * limit)
        found = zip(rows.tolist(), columns.tolist(), strict=True)
        pairs += [(start + row, start + column) for row, column in found if row < column]
    return pairs


def _same(one: Path, other: Path, known: dict[Path, bytes]) -> bool:
    return one == other or _digest(one, known) == _digest(other, known)


def _digest(path: Path, known: dict[Path, bytes]) -> bytes:
    if path not in known:
        with open(path, "rb") as file:
            known[path] = hashlib.file_digest(file, "sha256").digest()
    return known[path]
