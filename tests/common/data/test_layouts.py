"""Folders as people have them: splits of any name, class folders, wrappers, junk, and what is refused."""

from __future__ import annotations

import os
import shutil
import socket
import unicodedata
from pathlib import Path

import pytest

from common.data.folder import ImageData, read_folder
from common.system.errors import UserError
from tests.common.data.pictures import write_classes, write_noise, write_table


def read(root: Path, **options) -> ImageData:
    return read_folder(root, progress=False, **options)


def counts(data: ImageData) -> tuple[int, int, int]:
    return len(data.train), len(data.validation), len(data.test)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val", "VALID"])
def test_a_validation_folder_is_the_test_set_where_there_is_no_other(tmp_path, name):
    write_classes(tmp_path / "train", count=3)
    write_classes(tmp_path / name, count=2, first=100)
    data = read(tmp_path)
    assert counts(data) == (6, 0, 4)
    assert data.summary == f"2 classes, 6 training images, 4 test images; no test folder: {name}/ is the test set"
    assert data.test[0].name == "test/cat/00.png"
    assert data.test[0].path == tmp_path / name / "cat" / "00.png"
    assert data.held_back is None


def test_with_three_splits_each_keeps_its_role(tmp_path):
    for number, name in enumerate(("train", "val", "test")):
        write_classes(tmp_path / name, count=3 - number, first=100 * number)
    data = read(tmp_path)
    assert counts(data) == (6, 4, 2)
    assert {sample.path.parts[-3] for sample in data.validation} == {"val"}
    assert data.summary == "2 classes, 6 training images, 4 validation images, 2 test images"


def test_a_folder_of_class_folders_is_divided(tmp_path):
    data = read(write_classes(tmp_path, ("ant", "bee", "cow"), count=10))
    assert data.classes == ("ant", "bee", "cow")
    assert counts(data) == (24, 0, 6)
    assert [sum(sample.label == label for sample in data.test) for label in range(3)] == [2, 2, 2]
    assert data.summary == "3 classes, 24 training images, 6 test images; no test folder: 20 % held back, seed 0"
    assert data.held_back is not None
    assert sorted(data.held_back.test) == sorted(str(s.path.relative_to(tmp_path)) for s in data.test)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_wrapper_changes_nothing(tmp_path, depth):
    plain = read(write_classes(tmp_path / "plain"))
    inner = tmp_path / "wrapped" / Path(*["inner"] * depth)
    shutil.copytree(tmp_path / "plain", inner)
    (tmp_path / "wrapped" / "README.txt").write_text("about")
    wrapped = read(tmp_path / "wrapped")
    assert wrapped.root == inner
    assert wrapped.fingerprint == plain.fingerprint
    assert [s.name for s in wrapped.test] == [s.name for s in plain.test]


def test_a_wrapper_above_train_and_val(tmp_path):
    write_classes(tmp_path / "flowers" / "train", count=3)
    write_classes(tmp_path / "flowers" / "val", count=2, first=50)
    assert counts(read(tmp_path)) == (6, 0, 4)


def test_a_lone_train_folder_is_divided(tmp_path):
    write_classes(tmp_path / "train")
    assert counts(read(tmp_path)) == (16, 0, 4)


def test_train_and_test_written_out_have_the_fingerprint_of_the_same_split(tmp_path):
    plain = read(write_classes(tmp_path / "plain"))
    for sample in (*plain.train, *plain.test):
        (tmp_path / "split" / sample.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample.path, tmp_path / "split" / sample.name)
    assert read(tmp_path / "split").fingerprint == plain.fingerprint


def test_what_systems_leave_behind_is_neither_class_nor_error(tmp_path):
    junk = (
        ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN",
        "System Volume Information", "lost+found", ".hidden", "Icon\r",
    )  # fmt: skip
    write_classes(tmp_path / "clean")
    root = tmp_path / "full"
    shutil.copytree(tmp_path / "clean", root)
    for name in junk:
        write_noise(root / name / "x.png", 900)
        write_noise(root / "cat" / name / "x.png", 901)
    (root / "cat" / "thumbs.DB").write_bytes(b"x")
    data, clean = read(root), read(tmp_path / "clean")
    assert data.classes == ("cat", "dog")
    assert data.fingerprint == clean.fingerprint
    assert data.skipped == ()


def test_junk_does_not_hide_a_wrapper(tmp_path):
    write_classes(tmp_path / "flowers")
    write_noise(tmp_path / "__MACOSX" / "flowers" / "x.png", 1)
    assert read(tmp_path).root == tmp_path / "flowers"


def test_names_that_differ_in_unicode_form_only_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    write_classes(tmp_path / "train", (composed, "z"), count=3)
    write_classes(tmp_path / "test", (decomposed, "z"), count=2, first=50)
    data = read(tmp_path)
    assert data.classes == ("z", composed)
    assert counts(data) == (6, 0, 4)


def test_two_forms_of_a_name_in_one_folder_keep_all_pictures_apart(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    write_classes(tmp_path, (composed, "z", decomposed), count=5)
    data = read(tmp_path)
    assert data.classes == ("z", composed)
    names = [sample.name for sample in (*data.train, *data.test)]
    assert len(set(names)) == 15


@pytest.mark.parametrize("skip", [False, True])
def test_pipes_and_sockets_are_never_opened(tmp_path, skip, monkeypatch):
    write_classes(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "cat" / "pipe.png")
    monkeypatch.chdir(tmp_path / "data" / "dog")  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    if skip:
        data = read(tmp_path / "data", bad_images="skip")
        assert [(s.name, s.reason) for s in data.skipped] == [
            ("cat/pipe.png", "not a regular file"), ("dog/socket.jpg", "not a regular file"),
        ]  # fmt: skip
        assert data.summary.endswith("; 2 unusable files left out")
        return
    with pytest.raises(UserError, match=r"(?s)cat/pipe\.png: not a regular file.*dog/socket\.jpg: not a regular file"):
        read(tmp_path / "data")


def test_what_is_beside_the_splits_is_named(tmp_path):
    write_classes(tmp_path / "train", count=3)
    write_classes(tmp_path / "test", count=2, first=50)
    write_noise(tmp_path / "unlabelled" / "x.png", 99)
    assert read(tmp_path).summary.endswith("; not read: unlabelled/")


def test_a_table_in_a_folder_of_pictures_is_used(tmp_path):
    for number in range(20):
        write_noise(tmp_path / "images" / f"{number}.png", number)
    rows = [{"file_name": f"{number}.png", "label": ("cat", "dog")[number % 2]} for number in range(20)]
    write_table(tmp_path / "labels.csv", rows)
    data = read(tmp_path)
    assert data.classes == ("cat", "dog")
    assert counts(data) == (16, 0, 4)
    assert data.summary.endswith("; table labels.csv (file_name, label)")


def refuse(root: Path, message: str, **options) -> None:
    with pytest.raises(UserError, match=message):
        read(root, **options)


def test_an_empty_folder(tmp_path):
    refuse(tmp_path, r"has no class folders \(found: nothing\)\. --data takes")


def test_loose_pictures_alone(tmp_path):
    write_noise(tmp_path / "a.png", 1)
    refuse(tmp_path, r"has no class folders \(1 images lie directly in it\)")


def test_loose_pictures_beside_class_folders(tmp_path):
    write_classes(tmp_path)
    write_noise(tmp_path / "stray.png", 99)
    refuse(tmp_path, r"stray\.png: lies beside the class folders, so it has no class")
    assert counts(read(tmp_path, bad_images="skip")) == (16, 0, 4)


def test_one_class(tmp_path):
    write_classes(tmp_path, ("cat",))
    refuse(tmp_path, "has only one class, cat")


def test_a_class_without_images(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "empty").mkdir()
    refuse(tmp_path, "Class folder .*empty holds no images; known are")


def test_a_class_with_one_image(tmp_path):
    write_classes(tmp_path)
    write_noise(tmp_path / "cow" / "a.png", 99)
    refuse(tmp_path, "Class cow has one image .*, and no test folder")


def test_a_test_folder_without_train(tmp_path):
    write_classes(tmp_path / "test")
    write_classes(tmp_path / "val")
    refuse(tmp_path, r"has no train folder; found: test/, val/")


def test_a_lone_test_folder(tmp_path):
    write_classes(tmp_path / "test")
    refuse(tmp_path, r"has no train folder; found: test/")


def test_a_train_folder_beside_other_pictures(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "more", first=50)
    refuse(tmp_path, r"no test folder; found: more/, train/\. To hold test images back from train/ give --data .*train")


def test_two_folders_for_one_split(tmp_path):
    for number, name in enumerate(("train", "val", "valid", "test")):
        write_classes(tmp_path / name, count=2, first=20 * number)
    refuse(tmp_path, "has two folders of validation images, val and valid")


def test_splits_inside_of_classes(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        write_classes(tmp_path / name, ("train", "test"), first=50 * number)
    refuse(tmp_path, r"each class \(cat, dog\) has folders for its splits\. The split comes first")


def test_several_data_sets(tmp_path):
    for number, name in enumerate(("one", "two")):
        write_classes(tmp_path / name / "train", first=100 * number)
        write_classes(tmp_path / name / "test", first=100 * number + 50)
    refuse(tmp_path, r"several data sets \(one, two\)")


def test_an_empty_split(tmp_path):
    write_classes(tmp_path / "train")
    (tmp_path / "val").mkdir()
    refuse(tmp_path, "val has no class folders")


def test_a_validation_class_that_is_not_trained_on(tmp_path):
    for number, name in enumerate(("train", "val", "test")):
        write_classes(tmp_path / name, count=2, first=20 * number)
    write_noise(tmp_path / "val" / "cow" / "a.png", 99)
    refuse(tmp_path, "Class cow is in .*val but not in .*train")


def test_a_folder_whose_files_are_all_unusable(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"")
        (tmp_path / name / "b.jpg").write_bytes(b"")
    refuse(tmp_path, "4 files in .* can't be used as images")
    refuse(tmp_path, "No image of .*cat is readable", bad_images="skip")


def test_a_class_called_train_is_a_class(tmp_path):
    data = read(write_classes(tmp_path, ("bus", "car", "train")))
    assert data.classes == ("bus", "car", "train")
