import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from common.data.folder import read_folder
from common.system.errors import UserError


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path)


def make(root: Path, classes=("hotdog", "not-hotdog"), train=3, test=2) -> Path:
    for split, count in (("train", train), ("test", test)):
        for name in classes:
            for number in range(count):
                write_image(root / split / name / f"{number:04d}.jpg")
    return root


def read(root, **options):
    return read_folder(root, progress=False, **options)


def test_samples_names_and_labels(tmp_path):
    data = read(make(tmp_path / "photos"))
    assert data.classes == ("hotdog", "not-hotdog")
    assert data.class_to_idx == {"hotdog": 0, "not-hotdog": 1}
    assert [sample.name for sample in data.test] == [
        "test/hotdog/0000.jpg", "test/hotdog/0001.jpg", "test/not-hotdog/0000.jpg", "test/not-hotdog/0001.jpg",
    ]  # fmt: skip
    assert [sample.label for sample in data.train] == [0, 0, 0, 1, 1, 1]
    assert data.name == "photos"
    assert data.skipped == ()
    assert all(sample.path == tmp_path / "photos" / sample.name for sample in data.train)


def test_many_classes_deeper_folders_and_upper_case(tmp_path):
    root = make(tmp_path, ("b", "a", "A", "c"))
    write_image(root / "train" / "a" / "day 1" / "x.JPG")
    data = read(root)
    assert data.classes == ("A", "a", "b", "c")
    assert "train/a/day 1/x.JPG" in [sample.name for sample in data.train]


def test_descends_into_the_only_folder_with_the_layout(tmp_path):
    make(tmp_path / "hotdog")
    (tmp_path / "notes").mkdir()
    data = read(tmp_path)
    assert data.root == tmp_path / "hotdog"
    assert data.train[0].name == "train/hotdog/0000.jpg"
    make(tmp_path / "second")
    with pytest.raises(UserError, match=r"several data sets \(hotdog, second\)"):
        read(tmp_path)


def test_what_systems_leave_behind_is_ignored(tmp_path):
    root = make(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0000.jpg"):
        (root / "train" / "hotdog" / name).write_bytes(b"x")
    write_image(root / "__MACOSX" / "a.jpg")
    write_image(root / "train" / ".hidden" / "a.jpg")
    (root / "train" / "labels.csv").write_text("x")
    assert len(read(root).train) == 6


def test_fingerprint_tells_content_but_not_place(tmp_path):
    first = read(make(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert read(tmp_path / "b").fingerprint == first.fingerprint
    assert len(first.fingerprint) == 64
    with open(tmp_path / "b" / "test" / "hotdog" / "0000.jpg", "ab") as file:
        file.write(b"\0")
    assert read(tmp_path / "b").fingerprint != first.fingerprint
    assert read(tmp_path / "a", test_limit=2).fingerprint != first.fingerprint


def test_limits_are_even_over_classes_and_spread_through_them(tmp_path):
    root = make(tmp_path, train=10, test=4)
    data = read(root, train_limit=5, test_limit=100)
    names = [sample.name for sample in data.train]
    assert names == [f"train/hotdog/000{i}.jpg" for i in (0, 3, 6)] + [f"train/not-hotdog/000{i}.jpg" for i in (0, 5)]
    assert len(data.test) == 8
    with pytest.raises(UserError, match="--test-limit 1 is too small: there are 2 classes"):
        read(root, test_limit=1)


def test_a_limit_is_met_although_one_class_is_small(tmp_path):
    root = make(tmp_path, train=10)
    for number in range(1, 10):
        (root / "train" / "hotdog" / f"{number:04d}.jpg").unlink()
    assert [sample.label for sample in read(root, train_limit=6).train] == [0] + [1] * 5


def test_unreadable_images_are_all_listed(tmp_path):
    root = make(tmp_path)
    (root / "test" / "hotdog" / "0001.jpg").write_bytes(b"<html>")
    (root / "train" / "hotdog" / "notes.txt").write_text("x")
    os.symlink(tmp_path / "gone.jpg", root / "train" / "hotdog" / "link.jpg")
    with pytest.raises(UserError) as caught:
        read(root)
    text = str(caught.value)
    assert text.startswith("3 files in ")
    assert "--bad-images skip" in text
    assert "test/hotdog/0001.jpg: not an image in a known format" in text
    assert "train/hotdog/notes.txt: not an image by its name" in text
    assert "train/hotdog/link.jpg: no such file" in text


def test_skipping_leaves_them_out_and_says_so(tmp_path):
    root = make(tmp_path)
    (root / "train" / "hotdog" / "0001.jpg").write_bytes(b"")
    write_image(root / "train" / "stray.jpg")
    data = read(root, bad_images="skip")
    assert [sample.name for sample in data.train][:2] == ["train/hotdog/0000.jpg", "train/hotdog/0002.jpg"]
    assert [skipped.name for skipped in data.skipped] == ["train/stray.jpg", "train/hotdog/0001.jpg"]
    assert "no class" in data.skipped[0].reason


def test_skipping_may_not_empty_a_class(tmp_path):
    root = make(tmp_path, test=1)
    (root / "test" / "hotdog" / "0000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="No image of .*hotdog is readable"):
        read(root, bad_images="skip")


def test_only_what_a_limit_uses_is_checked(tmp_path):
    root = make(tmp_path, train=4)
    (root / "train" / "hotdog" / "0001.jpg").write_bytes(b"")
    assert len(read(root, train_limit=4).train) == 4


def test_wrong_value_for_bad_images(tmp_path):
    with pytest.raises(UserError, match="--bad-images is 'ignore'; it can be error, skip or load"):
        read(make(tmp_path), bad_images="ignore")


def test_missing_root_and_file_as_root(tmp_path):
    with pytest.raises(UserError, match="There is no folder .*nowhere"):
        read(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file, not a folder"):
        read(tmp_path / "file")


def test_no_class_folders(tmp_path):
    root = make(tmp_path)
    shutil.rmtree(root / "test")
    write_image(root / "test" / "a.jpg")
    with pytest.raises(UserError, match=r"test has no class folders \(1 images lie directly in it\)"):
        read(root)


def test_one_class_is_too_few(tmp_path):
    with pytest.raises(UserError, match="only one class, hotdog"):
        read(make(tmp_path, ("hotdog",)))


def test_a_class_in_one_split_only(tmp_path):
    root = make(tmp_path)
    (root / "test" / "not-hotdog").rename(root / "test" / "nothotdog")
    with pytest.raises(
        UserError, match="Class not-hotdog is in .*train but not in .*test, which has hotdog, nothotdog"
    ):
        read(root)


def test_an_empty_class(tmp_path):
    root = make(tmp_path)
    shutil.rmtree(root / "train" / "hotdog")
    (root / "train" / "hotdog").mkdir()
    with pytest.raises(UserError, match="train/hotdog holds no images"):
        read(root)


def test_links_in_a_circle_end(tmp_path):
    root = make(tmp_path)
    os.symlink(root / "train", root / "train" / "hotdog" / "round")
    os.symlink(root / "train" / "hotdog", root / "train" / "hotdog" / "again")
    names = [sample.name for sample in read(root).train if sample.label == 0]
    assert names == [f"train/hotdog/000{i}.jpg" for i in range(3)]


def test_a_link_to_itself_is_listed_like_any_file_that_is_no_image(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(tmp_path / split / name / "1.png")
    (tmp_path / "train" / "a" / "loop").symlink_to(tmp_path / "train" / "a" / "loop")
    with pytest.raises(UserError, match="train/a/loop"):
        read_folder(tmp_path, progress=False)
