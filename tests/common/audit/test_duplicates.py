"""Pictures that are there twice are found, others are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from common.audit.duplicates import LARGEST_DISTANCE, Pair, find_groups, find_pairs, group_numbers
from common.audit.pictures import measure
from common.data.folder import read_folder
from tests.common.audit.photographs import write_scenes


def pairs_of(root: Path) -> list[tuple[str, str, str]]:
    pictures, vanished = measure(read_folder(root, progress=False), workers=2)
    assert vanished == []
    return [(pictures[pair.first].name, pictures[pair.second].name, pair.kind) for pair in find_pairs(pictures)]


def test_pictures_that_differ_make_no_pair(tmp_path: Path) -> None:
    assert pairs_of(write_scenes(tmp_path / "data", train=40, test=20)) == []


def resaved(image: Image.Image, path: Path) -> None:
    image.save(path, quality=40)


def resized(image: Image.Image, path: Path) -> None:
    image.resize((round(image.width * 0.8), round(image.height * 0.8))).save(path, quality=90)


def cropped(image: Image.Image, path: Path) -> None:
    image.crop((7, 0, image.width, image.height - 5)).save(path, quality=90)


def mirrored(image: Image.Image, path: Path) -> None:
    ImageOps.mirror(image).save(path, quality=90)


@pytest.mark.parametrize(("change", "kind"), [
    (resaved, "same picture"), (resized, "same picture"), (cropped, "cropped"), (mirrored, "mirrored"),
])  # fmt: skip
def test_a_changed_copy_is_found_with_its_kind(
    tmp_path: Path, change: Callable[[Image.Image, Path], None], kind: str
) -> None:
    root = write_scenes(tmp_path / "data")
    with Image.open(root / "train/cat/2.png") as image:
        change(image, root / "test/cat/copy.jpg")
    assert pairs_of(root) == [("train/cat/2.png", "test/cat/copy.jpg", kind)]


def test_the_same_bytes_and_the_same_pixels_are_told_apart(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data")
    shutil.copy(root / "train/cat/2.png", root / "train/dog/again.png")
    with Image.open(root / "train/cat/2.png") as image:
        image.save(root / "test/dog/pixels.bmp")
    assert pairs_of(root) == [
        ("train/cat/2.png", "train/dog/again.png", "same file"),
        ("train/cat/2.png", "test/dog/pixels.bmp", "same pixels"),
    ]


def test_a_picture_turned_by_exif_is_the_same_picture(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data")
    with Image.open(root / "train/cat/2.png") as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(root / "test/cat/turned.jpg", quality=95, exif=exif)
    assert pairs_of(root) == [("train/cat/2.png", "test/cat/turned.jpg", "same picture")]


def test_no_distance_allowed_finds_only_equal_hashes(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data")
    with Image.open(root / "train/cat/2.png") as image:
        cropped(image, root / "test/cat/copy.jpg")
    pictures, _ = measure(read_folder(root, progress=False), workers=1)
    (pair,) = find_pairs(pictures)
    assert 0 < pair.distance <= LARGEST_DISTANCE
    assert find_pairs(pictures, largest_distance=pair.distance - 1) == []
    assert find_pairs(pictures, largest_distance=pair.distance) == [pair]


def test_pairs_that_share_a_picture_are_one_group() -> None:
    pairs = [Pair(1, 4, "same file", 0), Pair(4, 6, "cropped", 20), Pair(0, 5, "mirrored", 2)]
    groups = find_groups(8, pairs)
    assert [group.members for group in groups] == [(0, 5), (1, 4, 6)]
    assert groups[1].pairs == (pairs[0], pairs[1])
    numbers = group_numbers(8, pairs)
    assert len(set(numbers)) == 5
    assert numbers[1] == numbers[4] == numbers[6]


def test_a_picture_that_vanishes_is_told(tmp_path: Path) -> None:
    data = read_folder(write_scenes(tmp_path / "data"), progress=False)
    data.train[3].path.unlink()
    told: list[int] = []
    pictures, vanished = measure(data, workers=2, on_progress=told.append)
    assert (len(pictures), [found.name for found in vanished]) == (17, ["train/cat/3.png"])
    assert told == list(range(1, 19))


def test_blank_pictures_are_the_same_only_if_their_pixels_are(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data")
    for name, colour in (("a", "white"), ("b", "white"), ("c", "black"), ("d", "grey")):
        Image.new("RGB", (90, 70), colour).save(
            root / "train" / "cat" / f"{name}.png", compress_level=len(name + colour)
        )
    assert [(one, other) for one, other, _ in pairs_of(root)] == [("train/cat/a.png", "train/cat/b.png")]


def test_one_picture_and_none_have_no_pairs(tmp_path: Path) -> None:
    pictures, _ = measure(read_folder(write_scenes(tmp_path / "data"), progress=False), workers=1)
    assert find_pairs(pictures[:1]) == []
    assert find_pairs([]) == []
