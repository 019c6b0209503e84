"""Test images that are held back: how many, which, and that nothing but the data and the seed decides it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import datasets
from common.data.folder import ImageData, read_folder
from common.data.holdout import hold_back
from common.data.listing import File
from common.system.errors import UserError
from tests.common.data.pictures import rows_of, write_classes, write_noise, write_table, write_zip


def read(root: Path, **options) -> ImageData:
    return read_folder(root, progress=False, **options)


def names(data: ImageData) -> list[str]:
    return [sample.name for sample in data.test]


def files(**counts: int) -> list[File]:
    """Files of classes, as many each as `counts` says."""
    return [
        File(Path(f"/{label}/{number}"), f"{label}/{number}", label, f"{number}")
        for label, count in counts.items()
        for number in range(count)
    ]


def held(divided: list[File], label: str) -> int:
    return sum(file.split == "test" and file.label == label for file in divided)


@pytest.mark.parametrize(("images", "test"), [(2, 1), (3, 1), (5, 1), (10, 2), (12, 2), (13, 3), (160, 32)])
def test_a_fifth_of_each_class_at_least_one(images, test):
    divided, held_back = hold_back(files(a=images, b=50), range(images + 50), 0)
    assert held(divided, "a") == test
    assert held(divided, "b") == 10
    assert len(held_back.test) == test + 10
    assert {file.split for file in divided} == {"train", "test"}


def test_the_seed_chooses_and_repeats():
    listed = files(a=50, b=50)
    first, again, other = (hold_back(listed, range(100), seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_order_and_place_do_not_matter():
    listed = files(a=50, b=50)
    moved = [File(Path("/elsewhere") / file.shown, f"x/{file.shown}", file.label, file.place) for file in listed[::-1]]
    assert {f.name for f in hold_back(listed, range(100), 0)[0]} == {f.name for f in hold_back(moved, range(100), 0)[0]}


def test_a_folder_that_grows_keeps_most_of_its_split():
    before = {f.name for f in hold_back(files(a=100, b=100), range(200), 0)[0] if f.split == "test"}
    after = {f.name for f in hold_back(files(a=110, b=100), range(210), 0)[0] if f.split == "test"}
    assert len(before & after) >= 35


def test_a_group_stays_on_one_side_even_across_classes():
    listed = files(a=40, b=40)
    groups = [number // 2 for number in range(40)] + [number // 2 for number in range(40)]  # of two a and two b each
    divided, held_back = hold_back(listed, groups, 3)
    sides: dict[int, set[str]] = {}
    for file, group in zip(divided, groups, strict=True):
        sides.setdefault(group, set()).add(file.split)
    assert all(len(side) == 1 for side in sides.values())
    assert held(divided, "a") == held(divided, "b") == 8
    assert held_back.near_duplicates == 80


def test_a_class_of_large_groups_gets_the_smallest():
    divided, _ = hold_back(files(a=9, b=50), [0] * 5 + [1] * 4 + list(range(2, 52)), 0)
    assert held(divided, "a") == 4


@pytest.mark.parametrize(("listed", "groups", "message"), [
    (files(a=1, b=5), list(range(6)), "Class a has one image"),
    (files(a=5, b=5), [0] * 5 + [1, 2, 3, 4, 5], "Class a has 5 images that are nearly alike"),
    (files(a=5, b=5), [0] * 10, "Class a has 5 images that are nearly alike"),
])  # fmt: skip
def test_what_cannot_be_divided(listed, groups, message):
    with pytest.raises(UserError, match=message):
        hold_back(listed, groups, 0)


def test_near_duplicates_of_photographs_stay_together(tmp_path):
    """Each picture has a smaller, more compressed copy; a split that ignores it would part some of the 40 pairs."""
    write_classes(tmp_path, count=20)
    for path in sorted(tmp_path.rglob("*.png")):
        with Image.open(path) as image:
            large = image.resize((200, 200), Image.Resampling.BICUBIC)
        large.save(path)
        large.resize((120, 120)).save(path.with_suffix(".copy.jpg"), quality=50)
    data = read(tmp_path)
    assert data.summary.endswith("20 % held back, seed 0, 80 near-duplicates kept together")
    assert len(data.test) == 16
    assert {Path(name).stem.split(".")[0] for name in names(data) if name.endswith("png") and "cat" in name} == {
        Path(name).stem.split(".")[0] for name in names(data) if name.endswith("jpg") and "cat" in name
    }


def test_all_layouts_give_one_split(tmp_path):
    write_classes(tmp_path / "photos", ("ant", "bee", "cow"))
    shutil.copytree(tmp_path / "photos", tmp_path / "wrapped" / "photos")
    archive = write_zip(tmp_path / "photos.zip", tmp_path / "photos", tmp_path)
    table = write_table(tmp_path / "labels.csv", rows_of(tmp_path / "photos", tmp_path))
    (tmp_path / "photos-and-table").mkdir()
    shutil.copytree(tmp_path / "photos", tmp_path / "photos-and-table" / "photos")
    shutil.copy(table, tmp_path / "photos-and-table" / "metadata.csv")
    zipped = write_zip(tmp_path / "table.zip", tmp_path / "photos-and-table", tmp_path)
    places = [tmp_path / "photos", tmp_path / "wrapped", archive, table, tmp_path / "photos-and-table", zipped]
    loaded = [datasets.load(str(place), cache=tmp_path / "cache", progress=False) for place in places]
    assert len({data.fingerprint for data in loaded}) == 1
    assert len({data.classes for data in loaded}) == 1
    assert len({tuple(names(data)) for data in loaded}) == 1
    assert [len(data.test) for data in loaded] == [6] * 6
    other = datasets.load(str(places[0]), cache=tmp_path / "cache", progress=False, split_seed=1)
    assert other.fingerprint != loaded[0].fingerprint


def test_limits_come_after_the_split(tmp_path):
    whole = read(write_classes(tmp_path))
    limited = read(tmp_path, train_limit=4, test_limit=2)
    assert (len(limited.train), len(limited.test)) == (4, 2)
    assert set(names(limited)) <= set(names(whole))
    assert limited.held_back == whole.held_back


def test_damaged_images_are_reported_before_anything_else(tmp_path):
    write_classes(tmp_path)
    for number in range(10):
        (tmp_path / "cat" / f"{number:02d}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"10 files in .* can't be used as images"):
        read(tmp_path)


def test_hashes_are_kept_and_made_anew_for_changed_images(tmp_path, fresh_cache, monkeypatch):
    from common.data import duplicates

    write_classes(tmp_path / "photos")
    first = read(tmp_path / "photos")
    counted = []
    real = duplicates.picture_hash
    monkeypatch.setattr(duplicates, "picture_hash", lambda path: counted.append(path) or real(path))
    assert names(read(tmp_path / "photos")) == names(first)
    assert counted == []
    write_noise(tmp_path / "photos" / "cat" / "00.png", 999)
    os.utime(tmp_path / "photos" / "cat" / "00.png", (1, 1))
    read(tmp_path / "photos")
    assert len(counted) == 20


def test_another_process_divides_alike(tmp_path):
    """Nothing of the split may hang on Python's random hashes."""
    write_classes(tmp_path / "photos")
    code = (
        "import sys\nfrom common.data.folder import read_folder\n"
        "print(*[s.name for s in read_folder(sys.argv[1], progress=False).test])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "photos")], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "FINE_TUNING_CACHE": str(tmp_path / seed)},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert found == {" ".join(names(read(tmp_path / "photos"))) + "\n"}


def test_pictures_of_one_colour_are_no_near_duplicates(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        for number in range(10):
            (tmp_path / name).mkdir(exist_ok=True)
            grey = np.full((8, 8, 3), 10 * number + label, np.uint8)
            Image.fromarray(grey).save(tmp_path / name / f"{number}.png")
    assert read(tmp_path).summary.endswith("held back, seed 0")
