"""Look at every picture of a data set once: its size, its digests, and perceptual hashes of it and of parts of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from common.data.duplicates import GREY_SIDE, HASH_BITS, HASH_SIDE, grey_square, hash_bits
from common.data.folder import ImageData, Sample, Skipped, read_file
from common.data.images import UnreadableImage

# Sides of the parts, as a share of the picture's, at which a cropped copy is looked for.
PARTS = (0.95, 0.90)

Hashes = NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """One readable picture of a data set."""

    sample: Sample
    split: str
    """`train`, `validation` or `test`; empty where the data has no split."""
    width: int
    """Pixels, upright."""
    height: int
    file_digest: str
    """Equal for files of the same bytes."""
    pixel_digest: str
    """Equal for files that decode to the same pixels."""
    hashes: Hashes = field(compare=False, repr=False)
    """Perceptual hashes (2 + parts, HASH_BITS): of the picture, of its mirror image, and of its parts; none (0,
    HASH_BITS) of a blank picture."""

    @property
    def name(self) -> str:
        """The name of the sample, a posix path below the folder of the data."""
        return self.sample.name


def measure(
    data: ImageData, workers: int, on_progress: Callable[[int], None] = lambda done: None
) -> tuple[list[Picture], list[Skipped]]:
    """Decode every picture of a data set and measure it.

    Args:
        data: The data.
        workers: Threads that decode; at most twice as many decoded pictures are in memory.
        on_progress: Is told how many pictures are done.

    Returns:
        The pictures, in the order train, validation, test; and those that could not be read although they could when
        the data was listed.
    """
    # A split that the project has made says nothing about the data.
    own = data.held_back is None
    listed = [
        (sample, split if own else "")
        for split, samples in (("train", data.train), ("validation", data.validation), ("test", data.test))
        for sample in samples
    ]
    pictures: list[Picture] = []
    unreadable: list[Skipped] = []
    for done, found in enumerate(_in_threads(listed, workers), 1):
        (pictures if isinstance(found, Picture) else unreadable).append(found)  # type: ignore[arg-type]
        on_progress(done)
    return pictures, unreadable


def _in_threads(listed: Sequence[tuple[Sample, str]], workers: int) -> Iterator[Picture | Skipped]:
    """Yield what was measured of each sample, in order; each thread has a few samples ahead of it, not all."""
    ahead = 2 * workers
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(listed)
        running = [pool.submit(_measure_one, *item) for item in islice(waiting, ahead)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(_measure_one, *item) for item in islice(waiting, 1)]


def _measure_one(sample: Sample, split: str) -> Picture | Skipped:
    try:
        image = read_file(sample)
        file_digest = _digest(sample.path.read_bytes())
    except (UnreadableImage, OSError) as error:
        return Skipped(sample.name, getattr(error, "reason", None) or str(error))
    pixels = _digest(b"%d %d " % image.size + image.tobytes())
    return Picture(sample, split, *image.size, file_digest, pixels, hashes(image))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def hashes(image: Image.Image) -> Hashes:
    """Return the perceptual hashes of a picture.

    Args:
        image: The picture, RGB.

    Returns:
        Bits (2 + parts, HASH_BITS): of the whole picture, of its mirror image, and of five parts (the centre and the
        four corners) of each size of PARTS. A blank picture has none: (0, HASH_BITS).
    """
    grey = grey_square(image)
    if grey is None:
        return np.empty((0, HASH_BITS), bool)
    whole = (0.0, 0.0, 1.0, 1.0)
    views = [_view(grey, whole), _view(ImageOps.mirror(grey), whole), *(_view(grey, box) for box in _parts())]
    return np.stack([hash_bits(view) for view in views])


def _parts() -> Iterator[tuple[float, float, float, float]]:
    """Yield left, top, right and bottom of each part, as shares of the picture's sides."""
    for side in PARTS:
        rest = 1 - side
        for left, top in ((rest / 2, rest / 2), (0, 0), (rest, 0), (0, rest), (rest, rest)):
            yield left, top, left + side, top + side


def _view(grey: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """Cut a part out of the square grey picture, at the size from which imagehash computes the hash."""
    left, top, right, bottom = (GREY_SIDE * edge for edge in box)
    side = 4 * HASH_SIDE
    return grey.resize((side, side), Image.Resampling.LANCZOS, box=(left, top, right, bottom))
