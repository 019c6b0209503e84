"""Decoded images, kept once in a file that every later epoch and run maps into its memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from common.data.folder import ImageData, Sample
from common.data.images import UnreadableImage, count_pixels, open_rgb
from common.spec.experiment import ExperimentSpec
from common.system.caches import cache_folder
from common.system.files import write_atomically
from common.system.machine import gibibytes

LIMIT = "FINE_TUNING_IMAGE_CACHE_GIB"
DEFAULT_LIMIT_GIB = 8.0
# Counts up when what `open_rgb` makes of a file changes.
VERSION = 1


class DecodedImages:
    """Reads samples from a file of their pixels, 8-bit RGB one after the other; the same pixels as `open_rgb` gives.

    Threads may share one; a copy in another process maps the same file.
    """

    def __init__(self, path: Path, places: dict[str, tuple[int, int, int]]) -> None:
        """places: path of the image -> offset in the file in bytes, height and width in pixels."""
        self.path, self.places = path, places

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The whole file, (bytes,)."""
        return np.memmap(self.path, np.uint8, "r")

    def __call__(self, sample: Sample) -> Image.Image:
        """The image, upright and RGB. A sample that is not in the file is decoded."""
        place = self.places.get(str(sample.path))
        if place is None:
            return open_rgb(sample.path)
        offset, height, width = place
        return Image.fromarray(self.pixels[offset : offset + 3 * height * width].reshape(height, width, 3))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "places": self.places}


def attach(spec: ExperimentSpec, data: ImageData, folder: Path | None = None) -> tuple[ImageData, dict[str, Any]]:
    """`data` whose images are decoded once and for all, where `spec` and the limits allow it, and what the record says.

    The file lies in `folder` (by default `decoded` in the cache folder) and is made anew when one of the images has
    another size or date. The limit is that of all such files, FINE_TUNING_IMAGE_CACHE_GIB (8 GiB unless set); the
    longest unused ones make room. Raises UserError for a limit that is no number.
    """
    reason = unwanted(spec)
    if reason is None:
        folder = folder or cache_folder() / "decoded"
        samples = (*data.train, *data.validation, *data.test)
        try:
            read, size = prepare(samples, folder, limit(), max(spec.workers, 1))
        except (_NoRoom, OSError, UnreadableImage) as error:
            reason = str(error)
        else:
            return replace(data, read=read), {"kept": True, "reason": None, "bytes": size}
    return data, {"kept": False, "reason": reason, "bytes": 0}


def unwanted(spec: ExperimentSpec) -> str | None:
    """Why an experiment wants no decoded images; None where it does."""
    if not spec.image_cache:
        return "image_cache is off"
    return "the native pipeline reads the files itself" if spec.pipeline == "native" else None


def limit() -> int:
    """The most bytes that all files of decoded images may take."""
    return gibibytes(LIMIT, DEFAULT_LIMIT_GIB)


class _NoRoom(Exception):
    pass


def prepare(samples: Sequence[Sample], folder: Path, limit: int, workers: int) -> tuple[DecodedImages, int]:
    """The decoded images of `samples`, from their file in `folder` or newly written to it, and its size in bytes."""
    # Sorted, so that a validation split makes no other file.
    paths = sorted({str(sample.path) for sample in samples})
    name = hashlib.sha256("\0".join(paths).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    pixels, index = folder / f"{name}.pixels", folder / f"{name}.json"
    wanted = fingerprint(paths)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        sizes = read_index(index, pixels, wanted)
        if sizes is None:
            index.unlink(missing_ok=True)
            counts = [3 * count_pixels(path) for path in paths]
            make_room(folder, sum(counts), limit, keep=pixels)
            sizes = write_pixels(pixels, paths, counts, workers)
            write_atomically(index, json.dumps({"fingerprint": wanted, "sizes": sizes}).encode())
        # The date of the last use, by which `make_room` chooses.
        os.utime(pixels)
        offsets = np.cumsum([0, *(3 * height * width for height, width in sizes)]).tolist()
        places = {path: (offset, *size) for path, offset, size in zip(paths, offsets, sizes, strict=False)}
        images = DecodedImages(pixels, places)
        # Mapped while no other run can delete the file; from now on this one keeps it.
        return images, images.pixels.size


def fingerprint(paths: Sequence[str]) -> str:
    """SHA-256 over names, sizes and dates of files, and over what decodes them."""
    digest = hashlib.sha256(f"{VERSION} {PIL.__version__}".encode())
    for path in paths:
        status = os.stat(path)
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_index(index: Path, pixels: Path, wanted: str) -> list[tuple[int, int]] | None:
    """Height and width of every image in a file of decoded images; None where it is missing, cut or out of date."""
    try:
        stored = json.loads(index.read_text())
        sizes = [(int(height), int(width)) for height, width in stored["sizes"]]
        whole = pixels.stat().st_size == sum(3 * height * width for height, width in sizes)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return sizes if whole and stored.get("fingerprint") == wanted else None


def make_room(folder: Path, size: int, limit: int, keep: Path) -> None:
    """Delete the longest unused files until `size` more bytes are within the limit and on the disk.

    Raises _NoRoom where that is not possible. A file that a run has mapped stays readable to it.
    """
    if size > limit:
        raise _NoRoom(f"{size / 2**30:.1f} GiB of pixels are more than {limit / 2**30:.1f} GiB ({LIMIT})")
    keep.unlink(missing_ok=True)
    others = sorted(folder.glob("*.pixels"), key=lambda path: path.stat().st_mtime)
    while others and sum(path.stat().st_size for path in others) + size > limit:
        oldest = others.pop(0)
        oldest.with_suffix(".json").unlink(missing_ok=True)
        oldest.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    # As much again stays free for everything else.
    if 2 * size > free:
        raise _NoRoom(f"{size / 2**30:.1f} GiB of pixels do not fit on the disk of {folder}")


def write_pixels(target: Path, paths: Sequence[str], counts: Sequence[int], workers: int) -> list[tuple[int, int]]:
    """Decode the images into a new file that appears as `target` only when it is whole; their heights and widths.

    counts: the bytes of each image. Raises UnreadableImage for one that has not as many, and OSError on a full disk.
    """
    partial = target.with_suffix(".partial")
    offsets = np.cumsum([0, *counts]).tolist()
    try:
        with open(partial, "wb") as file:
            # Writing to a mapped file on a full disk would end the process.
            os.posix_fallocate(file.fileno(), 0, offsets[-1])
        whole = np.memmap(partial, np.uint8, "r+")

        def decode(number: int) -> tuple[int, int]:
            pixels = np.asarray(open_rgb(paths[number]))
            if pixels.size != counts[number]:
                raise UnreadableImage(paths[number], "changed while it was read")
            whole[offsets[number] : offsets[number + 1]] = pixels.reshape(-1)
            return pixels.shape[0], pixels.shape[1]

        with ThreadPoolExecutor(workers) as pool:
            sizes = list(pool.map(decode, range(len(paths))))
        whole.flush()
        os.replace(partial, target)
        return sizes
    finally:
        partial.unlink(missing_ok=True)
