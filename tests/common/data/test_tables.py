"""Tables of files and labels, what they may be like, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from common.data.folder import ImageData, read_folder
from common.system.errors import UserError
from tests.common.data.pictures import rows_of, write_classes, write_noise, write_table


def read(root: Path, **options) -> ImageData:
    return read_folder(root, progress=False, **options)


@pytest.fixture
def plain(tmp_path) -> ImageData:
    """Class folders of 10 pictures each, under `photos`."""
    return read(write_classes(tmp_path / "photos"))


def same(data: ImageData, other: ImageData) -> bool:
    names = [[sample.name for sample in (*d.train, *d.test)] for d in (data, other)]
    return names[0] == names[1] and (data.classes, data.fingerprint) == (other.classes, other.fingerprint)


@pytest.mark.parametrize(
    ("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t"), (".jsonl", ""), (".CSV", ",")]
)
def test_a_table_of_class_folders_is_the_same_data(tmp_path, plain, suffix, delimiter):
    rows = rows_of(tmp_path / "photos", tmp_path)
    table = write_table(tmp_path / f"labels{suffix}", rows, delimiter or ",")
    data = read(table)
    assert same(data, plain)
    assert data.summary == f"{plain.summary}; table labels{suffix} (file_name, label)"


def test_paths_relative_to_the_pictures_folder_absolute_and_of_windows(tmp_path, plain):
    folder = tmp_path / "photos"
    assert same(read(write_table(folder / "labels.csv", rows_of(folder, folder))), plain)
    (folder / "labels.csv").unlink()
    below = [{**row, "file_name": str(row["file_name"])} for row in rows_of(folder, folder)]
    assert same(read(write_table(tmp_path / "labels.csv", below)), plain)
    absolute = [{**row, "file_name": str(folder / str(row["file_name"]))} for row in below]
    (tmp_path / "elsewhere").mkdir()
    assert same(read(write_table(tmp_path / "elsewhere" / "labels.csv", absolute)), plain)
    windows = [{**row, "file_name": "photos\\" + str(row["file_name"]).replace("/", "\\")} for row in below]
    assert same(read(write_table(tmp_path / "labels.csv", windows)), plain)


def test_a_byte_order_mark_capitals_blank_lines_and_other_columns(tmp_path, plain):
    rows = rows_of(tmp_path / "photos", tmp_path)
    lines = "\r\n".join(f'"{row["file_name"]}",7, {row["label"]} ' for row in rows)
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbf" + f"\r\nFilename,width,Class\r\n\r\n{lines}\r\n".encode())
    assert same(read(tmp_path / "labels.csv"), plain)


def test_a_column_of_splits(tmp_path, plain):
    names = {"train": "Training", "test": "valid"}
    rows = [
        {
            "path": sample.path.relative_to(tmp_path).as_posix(),
            "label": plain.classes[sample.label],
            "split": names[split],
        }
        for split, samples in (("train", plain.train), ("test", plain.test))
        for sample in samples
    ]
    data = read(write_table(tmp_path / "labels.csv", rows))
    assert same(data, plain)
    assert data.held_back is None
    assert data.summary == (
        "2 classes, 16 training images, 4 test images; no test folder: the validation split is the test set; "
        "table labels.csv (path, label, split)"
    )


def test_three_splits(tmp_path, plain):
    rows = rows_of(tmp_path / "photos", tmp_path)
    for number, row in enumerate(rows):
        row["split"] = ("train", "val", "test")[number % 3]
    data = read(write_table(tmp_path / "labels.jsonl", rows))
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 7, 6)


def test_numbers_as_labels(tmp_path):
    for number in range(12):
        write_noise(tmp_path / f"{number}.png", number)
    rows = [{"file_name": f"{number}.png", "label": number % 2} for number in range(12)]
    data = read(write_table(tmp_path / "labels.jsonl", rows))
    assert data.classes == ("0", "1")
    assert data.train[0].name.startswith("train/0/")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_metadata_as_hugging_face_has_it(tmp_path, suffix):
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        for number in range(count):
            write_noise(tmp_path / split / f"{number}.png", 10 * len(split) + number)
        rows = [{"file_name": f"{number}.png", "label": ("cat", "dog")[number % 2]} for number in range(count)]
        write_table(tmp_path / split / f"metadata{suffix}", rows)
    apart = read(tmp_path)
    assert (len(apart.train), len(apart.validation), len(apart.test)) == (4, 2, 2)
    rows = [
        {"file_name": f"{split}/{number}.png", "label": ("cat", "dog")[number % 2]}
        for split, count in (("train", 4), ("validation", 2), ("test", 2))
        for number in range(count)
    ]
    for table in list(tmp_path.rglob("metadata*")):
        table.unlink()
    write_table(tmp_path / f"metadata{suffix}", rows)
    assert same(read(tmp_path), apart)
    assert same(read(tmp_path / f"metadata{suffix}"), apart)


def test_metadata_without_labels_leaves_it_to_the_folders(tmp_path, plain):
    rows = [
        {"file_name": row["file_name"], "caption": "x"} for row in rows_of(tmp_path / "photos", tmp_path / "photos")
    ]
    write_table(tmp_path / "photos" / "metadata.csv", rows)
    data = read(tmp_path / "photos")
    assert same(data, plain)
    assert data.summary.endswith("; not read: metadata.csv")


def test_a_line_that_comes_twice_counts_once(tmp_path, plain):
    rows = rows_of(tmp_path / "photos", tmp_path)
    data = read(write_table(tmp_path / "labels.csv", [*rows, {**rows[0], "file_name": f"./{rows[0]['file_name']}"}]))
    assert same(data, plain)
    assert data.summary.endswith("; 1 line repeated")


def test_two_folders_of_one_class_name_keep_their_pictures_apart(tmp_path):
    write_classes(tmp_path / "one")
    write_classes(tmp_path / "two", first=50)
    rows = [*rows_of(tmp_path / "one", tmp_path), *rows_of(tmp_path / "two", tmp_path)]
    data = read(write_table(tmp_path / "labels.csv", rows))
    assert len({sample.name for sample in (*data.train, *data.test)}) == 40


def test_missing_files_and_pipes_are_listed_or_left_out(tmp_path, plain):
    rows = [*rows_of(tmp_path / "photos", tmp_path), {"file_name": "gone.png", "label": "cat"}]
    os.mkfifo(tmp_path / "pipe.png")
    rows += [{"file_name": "pipe.png", "label": "dog"}, {"file_name": "nul\0.png", "label": "dog"}]
    table = write_table(tmp_path / "labels.jsonl", rows)
    with pytest.raises(UserError, match=r"(?s)3 files.*gone\.png: no such.*pipe\.png: not a regular.*null byte"):
        read(table)
    assert same(read(table, bad_images="skip"), plain)


CAT, DOG = {"file_name": "photos/cat/00.png", "label": "cat"}, {"file_name": "photos/dog/00.png", "label": "dog"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([CAT, {**DOG, "label": ""}], r"(?s)can't be used:.*line 2: label is missing"),
        ([CAT, {**DOG, "label": None}], "line 2: label is missing"),
        ([CAT, {**DOG, "label": ["dog", "cat"]}], r"line 2: label is \['dog', 'cat'\]"),
        ([CAT, {**DOG, "label": ".."}], r"line 2: '\.\.' is no name of a class"),
        ([CAT, {**DOG, "label": "\ud800"}], "line 2: label is"),
        ([CAT, {**DOG, "file_name": " "}], "line 2: file_name is"),
        ([CAT, {**CAT, "label": "dog"}], "lines 1 and 2: photos/cat/00.png has two labels, 'cat' and 'dog'"),
        ([{**CAT, "split": "train"}, {**CAT, "split": "test"}], "has two splits, 'train' and 'test'"),
        ([{**CAT, "split": "train"}, {**DOG, "split": "tets"}], "line 2: the split 'tets' is none of train"),
        ([{**CAT, "split": "train"}, {**DOG, "split": ""}], "line 2: the split is missing"),
        ([{**CAT, "split": "test"}, {**DOG, "split": "val"}], "no training images; its splits are test, validation"),
        ([{"picture": "a", "kind": "b"}], r"needs a column of files \(file_name.*has: picture, kind"),
        ([{"file_name": "a.png", "caption": "b"}], r"one of labels \(label.*has: file_name, caption"),
        ([CAT, {**CAT, "file_name": "photos/cat/01.png"}], "has only one class, cat"),
        ([CAT, DOG], "Class cat has one image"),
        ([{**CAT, "file_name": "x.png"}, {**DOG, "file_name": "y.png"}], r"(?s)has no image that can be used.*x\.png"),
    ],
)  # fmt: skip
def test_lines_that_make_no_sense(tmp_path, plain, rows, message):
    with pytest.raises(UserError, match=message):
        read(write_table(tmp_path / "labels.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"file_name,label\n", "is empty"),
        ("a.jsonl", b"\n\n", "is empty"),
        ("a.csv", b"file_name,label\na.png\n", "Line 2 of the table .* has 1 values, its first line names 2 columns"),
        ("a.csv", b"file_name,label,label\na.png,x,y\n", "names a column twice"),
        ("a.csv", b'file_name,label\n"a.png,x\n', "Line 2 of the table .* is damaged"),
        ("a.csv", "file_name,label\n\xe9.png,x\n".encode("latin-1"), "is not UTF-8"),
        ("a.csv", "file_name,label\na.png,x\n".encode("utf-16"), "is not UTF-8"),
        ("a.jsonl", b'{"file_name": "a.png"\n', "Line 1 of the table .* is no JSON"),
        ("a.jsonl", b"[1]\n", "Line 1 of the table .* is no JSON object"),
        ("a.jsonl", b"[" * 100_000, "Line 1 of the table .* is no JSON"),
        ("a.csv", b"photos/cat/00.png,cat\nphotos/dog/00.png,dog\n", "needs a column of files"),
    ],
)
def test_tables_that_are_damaged(tmp_path, plain, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_many_faults_are_counted(tmp_path, plain):
    rows = [{"file_name": f"{number}.png", "label": ""} for number in range(50)]
    with pytest.raises(UserError, match=r"and 30 more"):
        read(write_table(tmp_path / "labels.csv", rows))


@pytest.mark.parametrize("outside", ["../secret.png", "/etc/secret.png"])
def test_a_table_that_came_with_a_data_set_may_not_lead_out_of_it(tmp_path, outside):
    write_noise(tmp_path / "secret.png", 1)
    write_noise(tmp_path / "photos" / "a.png", 2)
    rows = [{"file_name": "a.png", "label": "cat"}, {"file_name": outside, "label": "dog"}]
    write_table(tmp_path / "photos" / "metadata.csv", rows)
    with pytest.raises(UserError, match=r"(?s)can't be used:.*lies outside"):
        read(tmp_path / "photos")


def test_metadata_of_a_split_may_not_name_another(tmp_path):
    for split in ("train", "test"):
        write_noise(tmp_path / split / "a.png", len(split))
        write_table(tmp_path / split / "metadata.csv", [{"file_name": "a.png", "label": "cat", "split": "train"}])
    with pytest.raises(UserError, match="is for test images, but has lines of the split train"):
        read(tmp_path)


def test_a_pipe_in_the_place_of_a_table_is_not_opened(tmp_path):
    write_classes(tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos" / "dog")
    os.mkfifo(tmp_path / "photos" / "labels.csv")
    with pytest.raises(UserError, match="only one class"):
        read(tmp_path / "photos")
