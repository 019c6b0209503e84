"""Decoded images, kept once in a file that every later epoch and run maps into its memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from common.data.folder import ImageData, Sample, read_file
from common.data.images import USUAL, UnreadableImage, count_pixels
from common.spec.experiment import ExperimentSpec
from common.system.caches import Cache, NoRoom, cache_folder
from common.system.machine import gibibytes

LIMIT = "FINE_TUNING_IMAGE_CACHE_GIB"
DEFAULT_LIMIT_GIB = 8.0
# Counts up when what `open_rgb` makes of a file changes.
VERSION = 2
# The files of an entry.
PIXELS, SIZES = "pixels", "sizes.json"


class DecodedImages:
    """Reads samples from a file of their pixels, 8-bit RGB one after the other; the same pixels as `open_rgb` gives.

    Threads may share one; a copy in another process maps the same file.
    """

    def __init__(self, path: Path, places: dict[str, tuple[int, int, int]], short_side: int | None = None) -> None:
        """Read from the file at `path`.

        Args:
            path: The file.
            places: Path of an image -> its offset in the file in bytes, height and width in pixels.
            short_side: The short side in pixels to which larger images were reduced; None if they were not.
        """
        self.path, self.places, self.short_side = path, places, short_side

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The whole file, (bytes,)."""
        return np.memmap(self.path, np.uint8, "r")

    def __call__(self, sample: Sample, short_side: int | None = None) -> Image.Image:
        """Return the image, upright and RGB, as `Read` says; one that the file has not or not so is decoded."""
        place = self.places.get(str(sample.path))
        if place is None or short_side != self.short_side:
            return read_file(sample, short_side)
        offset, height, width = place
        return Image.fromarray(self.pixels[offset : offset + 3 * height * width].reshape(height, width, 3))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "places": self.places, "short_side": self.short_side}


def attach(
    spec: ExperimentSpec, data: ImageData, folder: Path | None = None, short_side: int | None = None
) -> tuple[ImageData, dict[str, Any]]:
    """Decode the images of `data` once and for all, where `spec` and the limits allow it.

    Args:
        spec: The experiment.
        data: Its data.
        folder: Where decoded images are kept, by default `decoded` in the cache folder. They are decoded anew when one
            of the images has another size or date. All entries together take at most FINE_TUNING_IMAGE_CACHE_GIB (8 GiB
            unless set); the longest unused ones make room.
        short_side: The short side in pixels to which larger images are reduced; None for images as they are.

    Returns:
        The data, which read the decoded images, and what the record says of them. UserError is raised for a limit that
        is no number.
    """
    reason = unwanted(spec)
    if reason is None:
        folder = folder or cache_folder() / "decoded"
        samples = (*data.train, *data.validation, *data.test)
        try:
            read, size = prepare(samples, Cache(folder, limit(), LIMIT), max(spec.workers, 1), short_side)
        except (NoRoom, OSError, UnreadableImage) as error:
            reason = str(error)
        else:
            return replace(data, read=read), {"kept": True, "reason": None, "bytes": size}
    return data, {"kept": False, "reason": reason, "bytes": 0}


def unwanted(spec: ExperimentSpec) -> str | None:
    """Return why an experiment wants no decoded images, or None where it wants them."""
    if not spec.image_cache:
        return "image_cache is off"
    return "the native pipeline reads the files itself" if spec.pipeline == "native" else None


def limit() -> int:
    """Return how many bytes all decoded images may take."""
    return gibibytes(LIMIT, DEFAULT_LIMIT_GIB)


def prepare(
    samples: Sequence[Sample], cache: Cache, workers: int, short_side: int | None = None
) -> tuple[DecodedImages, int]:
    """Decode the images of `samples`, unless the cache has them.

    Args:
        samples: The samples.
        cache: Where their pixels are kept.
        workers: Threads that decode.
        short_side: The short side in pixels to which larger images are reduced; None for images as they are.

    Returns:
        The decoded images, and their size in bytes.

    Raises:
        NoRoom: They do not fit into the cache or on the disk.
        OSError: The cache cannot be written to.
        UnreadableImage: An image is damaged.
    """
    # Sorted, so that a validation split makes no other entry.
    files = [sample for _, sample in sorted({str(sample.path): sample for sample in samples}.items())]
    counts: list[int] = []

    def fill(folder: Path) -> None:
        if not counts:
            counts.extend(_count_bytes(files, short_side))
        sizes = write_pixels(folder / PIXELS, files, counts, workers, short_side)
        (folder / SIZES).write_text(json.dumps(sizes))

    name = fingerprint(files, short_side)[:32]
    if cache.find(name) is None:
        counts.extend(_count_bytes(files, short_side))
    entry = cache.get(name, fill, sum(counts), whole=lambda entry: read_sizes(entry, len(files)) is not None)
    sizes = read_sizes(entry, len(files))
    assert sizes is not None
    offsets = np.cumsum([0, *(3 * height * width for height, width in sizes)]).tolist()
    placed = zip(files, offsets, sizes, strict=False)
    places = {str(sample.path): (offset, *size) for sample, offset, size in placed}
    images = DecodedImages(entry / PIXELS, places, short_side)
    # Mapped while no other run can delete the file; from now on this one keeps it.
    return images, images.pixels.size


def _count_bytes(files: Sequence[Sample], short_side: int | None) -> list[int]:
    return [3 * count_pixels(sample.path, short_side, sample.decoding) for sample in files]


def fingerprint(files: Sequence[Sample], short_side: int | None = None) -> str:
    """Return the SHA-256 over names, sizes and dates of files, and over how they are decoded and reduced."""
    reduced = "" if short_side is None else f" {short_side}"
    digest = hashlib.sha256(f"{VERSION} {PIL.__version__}{reduced}".encode())
    for sample in files:
        status = os.stat(sample.path)
        chosen = "" if sample.decoding == USUAL else f"\0{sample.decoding}"
        line = f"{sample.path}\0{status.st_size}\0{status.st_mtime_ns}{chosen}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_sizes(entry: Path, count: int) -> list[tuple[int, int]] | None:
    """Return height and width of each of `count` images of an entry; None where it is damaged."""
    try:
        sizes = [(int(height), int(width)) for height, width in json.loads((entry / SIZES).read_text())]
        whole = (entry / PIXELS).stat().st_size == sum(3 * height * width for height, width in sizes)
    except (OSError, ValueError, TypeError):
        return None
    return sizes if whole and len(sizes) == count else None


def write_pixels(
    target: Path, files: Sequence[Sample], counts: Sequence[int], workers: int, short_side: int | None = None
) -> list[tuple[int, int]]:
    """Decode images into one file.

    Args:
        target: The file.
        files: The images.
        counts: Bytes of each image once decoded.
        workers: Threads that decode.
        short_side: The short side in pixels to which larger images are reduced; None for images as they are.

    Returns:
        Height and width of each image.

    Raises:
        UnreadableImage: An image is damaged, or has not as many bytes.
        OSError: The disk is full.
    """
    offsets = np.cumsum([0, *counts]).tolist()
    with open(target, "wb") as file:
        # Writing to a mapped file on a full disk would end the process.
        os.posix_fallocate(file.fileno(), 0, offsets[-1])
    whole = np.memmap(target, np.uint8, "r+")

    def decode(number: int) -> tuple[int, int]:
        pixels = np.asarray(read_file(files[number], short_side))
        if pixels.size != counts[number]:
            raise UnreadableImage(files[number].path, "changed while it was read")
        whole[offsets[number] : offsets[number + 1]] = pixels.reshape(-1)
        return pixels.shape[0], pixels.shape[1]

    with ThreadPoolExecutor(workers) as pool:
        sizes = list(pool.map(decode, range(len(files))))
    whole.flush()
    return sizes
