"""Pictures that are there more than once: the same bytes, and copies that differ in format, size or quality."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from common.data import duplicates
from common.data.duplicates import MAX_DISTANCE, groups, near, picture_hash, same_files
from common.data.folder import read_folder
from common.data.notes import notes, shared_images
from common.spec.experiment import ExperimentSpec
from tests.common.data.pictures import write_classes, write_noise


def photograph(number: int, side: int = 300) -> Image.Image:
    """Something smooth and coloured, as photographs are, another for every number."""
    coarse = np.random.default_rng(number).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)


def test_copies_of_other_size_quality_format_and_brightness_are_one_group(tmp_path):
    paths = []
    for number in range(4):
        image = photograph(number)
        for name, copy in {
            "a.png": image, "b.jpg": image, "c.webp": image.resize((150, 112)), "d.jpg": image.resize((600, 450)),
            "e.png": ImageEnhance.Brightness(image).enhance(0.8), "f.png": image.convert("L"),
        }.items():  # fmt: skip
            paths.append(tmp_path / f"{number}{name}")
            copy.save(paths[-1])
    numbers = groups(paths, progress=False)
    assert [len(set(numbers[start : start + 6])) for start in range(0, 24, 6)] == [1] * 4
    assert len(set(numbers)) == 4


def test_other_pictures_are_far_apart(tmp_path):
    hashes = []
    for number in range(40):
        photograph(number).save(tmp_path / "x.png")
        hashes.append(picture_hash(tmp_path / "x.png"))
    assert near(np.array(hashes)) == []
    distances = [int((one != other).sum()) for i, one in enumerate(hashes) for other in hashes[:i]]
    assert min(distances) > MAX_DISTANCE


def test_near_finds_pairs_over_the_blocks_of_its_matrix(monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS", 3)
    hashes = np.random.default_rng(0).integers(0, 2, (10, duplicates.HASH_BITS)).astype(bool)
    hashes[9] = hashes[1]
    hashes[4] = hashes[3]
    hashes[4, :MAX_DISTANCE] ^= True
    hashes[7] = hashes[6]
    hashes[7, : MAX_DISTANCE + 1] ^= True
    assert sorted(near(hashes)) == [(1, 9), (3, 4)]


def test_groups_of_groups_are_one(tmp_path):
    image = photograph(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        image.save(path)
    write_noise(tmp_path / "other.png", 3)
    assert groups([*paths, tmp_path / "other.png"], progress=False)[:3] == [0, 0, 0]


def test_same_files_reads_only_what_may_be_equal(tmp_path, monkeypatch):
    one, two, three = (write_noise(tmp_path / f"{number}.png", number) for number in range(3))
    copy = Path(shutil.copy(two, tmp_path / "copy.png"))
    (tmp_path / "longer.png").write_bytes(one.read_bytes() + b"0")
    assert same_files([one, two], [three, copy, tmp_path / "longer.png", tmp_path / "gone.png"]) == [(1, 1)]
    monkeypatch.setattr(duplicates, "_digest", None)
    assert same_files([one], [tmp_path / "longer.png"]) == []


@pytest.mark.parametrize("copies", [0, 3])
def test_test_images_that_are_trained_on_are_told(tmp_path, copies):
    write_classes(tmp_path / "train", count=6)
    write_classes(tmp_path / "test", count=5, first=100)
    for number in range(copies):
        shutil.copy(tmp_path / "train" / "cat" / f"{number:02d}.png", tmp_path / "test" / "dog" / f"copy{number}.png")
    data = read_folder(tmp_path, progress=False)
    assert len(shared_images(data)) == copies
    said = notes(ExperimentSpec(data=str(tmp_path)), data)
    assert said[0] == f"{tmp_path.name}: 2 classes, 12 training images, {10 + copies} test images"
    assert (
        said[1:]
        == [
            "warning: 3 of the 13 test images are among the training images too, such as test/dog/copy0.png, which is "
            "train/cat/00.png; the test accuracy will flatter"
        ][:copies]
    )


def test_names_that_are_no_unicode_can_be_printed(tmp_path):
    write_classes(tmp_path / "train", count=3)
    write_classes(tmp_path / "test", count=2, first=50)
    shutil.copy(tmp_path / "train" / "cat" / "00.png", os.fsencode(tmp_path / "test" / "cat") + b"/\xe9.png")
    data = read_folder(tmp_path, progress=False)
    (_, warning) = notes(ExperimentSpec(data=str(tmp_path)), data)
    assert "such as test/cat/\\udce9.png, which is train/cat/00.png" in warning.encode().decode()


def test_the_project_s_own_data_need_no_words(pictures):
    assert notes(ExperimentSpec(data="demo"), pictures) == []
