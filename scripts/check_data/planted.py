"""What `scripts.check_data.plant` does: wrong labels and copies in a folder of links to a data set."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from PIL import Image, ImageOps

from common.data.folder import ImageData, Sample
from common.system.errors import UserError
from common.system.files import check_place, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = "check_data.plant"
TRUTH = "planted.json"
KINDS = ("exact", "quality", "resized", "cropped", "mirrored")
QUALITY = 60
SIZE = 0.8
# Both sides keep a share between these.
CROP = (0.90, 0.97)


@dataclass
class PlantOptions:
    """Write a folder of links to a data set, in which some labels are wrong and some pictures are there twice."""

    data: Annotated[str, tyro.conf.Positional]
    """Data set, folder or .zip, as --data of scripts.run takes it; it stays as it is."""
    output: Annotated[Path, tyro.conf.Positional]
    """Folder to write, which must not exist yet."""
    wrong: float = 0.05
    """Share of the labels to make wrong."""
    copies: int = 10
    """Copies of each kind: the same bytes, saved anew at JPEG quality 60, at 80 % of the size, with 3 to 10 % of each
    side cut off, and mirrored. Every second one goes to the other split."""
    seed: int = 0
    """Seed of the choice."""


def run(arguments: list[str]) -> int:
    """Write the folder and return the exit code."""
    from common.data import datasets

    options = tyro.cli(PlantOptions, prog=f"python -m scripts.{COMMAND}", args=arguments)
    if not 0 <= options.wrong <= 0.5 or options.copies < 0:
        raise UserError("--wrong is a share from 0 to 0.5, and --copies a number from 0 on")
    if options.output.exists():
        raise UserError(f"{options.output}: it exists already, and nothing is overwritten; choose another name")
    check_place("OUTPUT", options.output)
    truth = plant(datasets.load(options.data, bad_images="skip"), options)
    print(f"{options.output}: {len(truth['wrong'])} wrong labels, {len(truth['copies'])} copies; all in {TRUTH}")
    return 0


def plant(data: ImageData, options: PlantOptions) -> dict[str, Any]:
    """Write the folder with what is planted and planted.json, and return the content of that.

    Args:
        data: The data.
        options: The options.

    Returns:
        `wrong`: name -> the right class; `copies`: for each copy its name, the name of its source, and its kind.

    Raises:
        UserError: There are too few pictures.
    """
    draw = random.Random(options.seed)
    samples = [(sample, split) for split in ("train", "test") for sample in getattr(data, split)]
    order = draw.sample(range(len(samples)), len(samples))
    wrong = round(options.wrong * len(samples))
    if wrong + len(KINDS) * options.copies > len(samples):
        raise UserError(
            f"{len(samples)} pictures are too few for {wrong} wrong labels and {options.copies} copies each"
        )
    mislabelled, sources = set(order[:wrong]), order[wrong : wrong + len(KINDS) * options.copies]
    truth: dict[str, Any] = {"data": data.name, "seed": options.seed, "wrong": {}, "copies": []}
    names = {}
    for index, (sample, split) in enumerate(samples):
        label = sample.label
        if index in mislabelled:
            label = (label + draw.randrange(1, len(data.classes))) % len(data.classes)
        name = f"{split}/{data.classes[label]}/{index:05d}{sample.path.suffix}"
        names[index] = name
        link(sample, options.output / name)
        if index in mislabelled:
            truth["wrong"][name] = data.classes[sample.label]
    for number, index in enumerate(sources):
        sample, split = samples[index]
        kind = KINDS[number % len(KINDS)]
        place = split if number // len(KINDS) % 2 else {"train": "test", "test": "train"}[split]
        suffix = sample.path.suffix if kind == "exact" else ".jpg"
        name = f"{place}/{data.classes[sample.label]}/{len(samples) + number:05d}{suffix}"
        (options.output / name).write_bytes(copy(sample, kind, draw))
        truth["copies"].append({"copy": name, "source": names[index], "kind": kind, "between_splits": place != split})
    write_atomically(options.output / TRUTH, (json.dumps(truth, indent=1) + "\n").encode())
    return truth


def link(sample: Sample, target: Path) -> None:
    """Make a link to a picture."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(os.path.abspath(sample.path))


def copy(sample: Sample, kind: str, draw: random.Random) -> bytes:
    """Return the bytes of a copy of a picture.

    Args:
        sample: The picture.
        kind: One of KINDS.
        draw: Draws what is cut off.
    """
    if kind == "exact":
        return sample.path.read_bytes()
    with Image.open(sample.path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    if kind == "resized":
        image = image.resize((round(SIZE * image.width), round(SIZE * image.height)), Image.Resampling.BICUBIC)
    elif kind == "cropped":
        image = image.crop(tuple(_box(image.size, draw)))  # type: ignore[arg-type]
    elif kind == "mirrored":
        image = ImageOps.mirror(image)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY if kind == "quality" else 90)
    return stream.getvalue()


def _box(size: Sequence[int], draw: random.Random) -> Iterator[int]:
    """Yield left, top, right and bottom of a part that keeps a share of each side, at a random place."""
    kept = [round(draw.uniform(*CROP) * side) for side in size]
    first = [draw.randint(0, side - keep) for side, keep in zip(size, kept, strict=True)]
    yield from first
    yield from (start + keep for start, keep in zip(first, kept, strict=True))
