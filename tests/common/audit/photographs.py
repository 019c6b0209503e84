"""Small data sets that have something wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def scene(number: int, size: tuple[int, int] = (120, 96)) -> Image.Image:
    """A picture unlike the others: smooth colours that a generator of this number draws."""
    coarse = np.random.default_rng(number).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def write_scenes(root: Path, train: int = 6, test: int = 3) -> Path:
    """Two classes, cat and dog, of scenes that are all different."""
    number = 0
    for split, count in (("train", train), ("test", test)):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                scene(number).save(folder / f"{index}.png")
                number += 1
    return root
