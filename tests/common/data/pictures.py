"""Small pictures that tests of data sets write, and the layouts to put them in."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_noise(path: Path, number: int, size: int = 24) -> Path:
    """A picture of coarse noise: another for every number, which no near-duplicate is taken for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_classes(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10, first: int = 0) -> Path:
    """A folder for each class, with `count` pictures each."""
    for label, name in enumerate(classes):
        for number in range(count):
            write_noise(root / name / f"{number:02d}.png", first + label * count + number)
    return root


def write_table(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> Path:
    """A table of rows: .jsonl by its suffix, else with the keys of the first row as its first line."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(folder: Path, root: Path) -> list[dict[str, object]]:
    """A row for each picture of class folders, with paths below `root`."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [{"file_name": path.relative_to(root).as_posix(), "label": path.parent.name} for path in found]


def write_zip(path: Path, folder: Path, root: Path) -> Path:
    """A zip of a folder, with names below `root`."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(root))
    return path
