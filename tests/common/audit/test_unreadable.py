"""What a file is that cannot be used."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from common.audit.unreadable import CLASSLESS, kind_of
from common.data.folder import Skipped, read_folder
from tests.common.audit.photographs import scene, write_scenes


def jpeg() -> bytes:
    stream = io.BytesIO()
    scene(0, (300, 300)).save(stream, "JPEG")
    return stream.getvalue()


FILES = [
    ("a.jpg", b"", "an empty file"),
    ("a.jpg", bytes(1000), "nothing but zeros, as a broken copy leaves"),
    ("a.jpg", b"\n <!DOCTYPE html><html>404", "a web page"),
    ("a.jpg", b"%PDF-1.7 ...", "a PDF"),
    ("a.png", b"<?xml version='1.0'?><svg></svg>", "an SVG drawing"),
    ("a.jpg", b"PK\x03\x04....", "an archive"),
    ("a.jpg", b"\0\0\0\x18ftypqt  ....", "a video"),
    ("a.mp4", b"\0\0\0\x18ftypisom....", "a video"),
    ("a.jpg", b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS, not the file itself"),
    ("a.jpg", b"some words", "no format of pictures that is known"),
    ("a.txt", b"some words", "no picture by its name"),
    ("a.jpg", jpeg()[:2000], "cut short"),
]


@pytest.mark.parametrize(("name", "content", "kind"), FILES, ids=[kind for _, _, kind in FILES])
def test_the_kind_of_a_file(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    root = write_scenes(tmp_path / "data", train=1, test=1)
    (root / "train" / "cat" / name).write_bytes(content)
    (found,) = read_folder(root, bad_images="skip", progress=False).skipped
    assert kind_of(found, root) == kind


def test_a_picture_beside_the_class_folders(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data", train=1, test=1)
    scene(9).save(root / "train" / "stray.png")
    (found,) = read_folder(root, bad_images="skip", progress=False).skipped
    assert kind_of(found, root) == CLASSLESS


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    assert (
        kind_of(Skipped("train/cat/x.png", "no such file"), tmp_path) == "cannot be opened: No such file or directory"
    )


def test_values_without_a_range(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data", train=1, test=1)
    Image.new("F", (50, 50)).save(root / "train" / "cat" / "float.tiff")
    (found,) = read_folder(root, bad_images="skip", progress=False).skipped
    assert kind_of(found, root) == "values without a fixed range"
