"""What is said of the files of a data set: each kind of fault, and what is read in spite of something."""

import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import check
from common.data.folder import ImageData, read_folder
from common.data.images import Decoding, Facts
from common.system.errors import UserError
from tests.common.data.raw_files import png
from tests.common.data.test_image_damage import damaged
from tests.common.data.test_images import ramp


def make(root: Path) -> Path:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            Image.fromarray(ramp()).save(root / split / name / "0.png")
    return root


def read(root: Path, **options) -> ImageData:
    return read_folder(root, progress=False, **options)


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(ramp()).save(stream, "JPEG")
    return stream.getvalue()


def test_no_kind_of_fault_hides_another(tmp_path):
    folder = make(tmp_path) / "train" / "a"
    for number in range(30):
        (folder / f"empty {number:02d}.jpg").write_bytes(b"")
        (folder / f"wide {number:02d}.png").write_bytes(png(np.zeros((1, 300 + number)), 0, 8))
    (folder / "cut.jpg").write_bytes(jpeg()[:-20])
    (folder / "notes.txt").write_text("x")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("62 files in ")
    assert sum(line.endswith(": an empty file") for line in lines) == 5
    assert sum("times the other" in line for line in lines) == 5
    assert lines.count("  ... and 25 more of this kind") == 2
    assert sum("notes.txt: not an image by its name" in line for line in lines) == 1
    assert sum("cut.jpg: truncated" in line and "--bad-images load" in line for line in lines) == 1
    assert len(lines) == 16


def test_of_one_kind_as_many_are_listed_as_may_be(tmp_path):
    text = check.describe([(f"{number}.jpg", f"{number} pixels") for number in range(25)], tmp_path)
    assert text.count("pixels") == check.MAX_LISTED
    assert "... and 5 more of this kind" in text
    many = check.describe([(f"{letter}.jpg", f"fault {letter}") for letter in "abcdefghijklmnopqrstuvwxyz"], tmp_path)
    assert many.count("fault") == 26
    assert check.describe([("a", "b")], tmp_path).startswith("1 file in ")


def test_files_without_their_end_are_loaded_and_counted(tmp_path):
    folder = make(tmp_path) / "train" / "a"
    for number in range(5):
        (folder / f"cut{number}.jpg").write_bytes(jpeg()[:-20])
    (folder / "empty.jpg").write_bytes(b"")
    data = read(tmp_path, bad_images="load")
    assert data.remarks == (
        "5 JPEGs without their end, read as far as they go: train/a/cut0.jpg, train/a/cut1.jpg, train/a/cut2.jpg and 2 "
        "more",
    )
    assert [skipped.name for skipped in data.skipped] == ["train/a/empty.jpg"]
    assert len(data.train) == 7
    assert all(data.read(sample).size == (32, 24) for sample in data.train)
    assert len(read(tmp_path, bad_images="skip").train) == 2


def test_dark_images_are_told_with_the_range_that_mends_them(tmp_path):
    folder = make(tmp_path) / "train" / "a"
    for number, largest in enumerate((3000, 2500)):
        values = np.linspace(0, largest, 100).astype(np.uint16).reshape(10, 10)
        Image.fromarray(values).save(folder / f"dark{number}.png")
    (remark,) = read(tmp_path).remarks
    assert remark == (
        "2 images far darker than the range of their values, of which none is above 3,000 of 65,535; if they look "
        "black, give --image-range 4095: train/a/dark0.png, train/a/dark1.png"
    )
    data = read(tmp_path, decoding=Decoding(image_range=4095))
    assert data.remarks == ()
    sample = next(sample for sample in data.train if "dark0" in sample.name)
    assert np.asarray(data.read(sample)).max() == 187


def test_pixels_allowed_by_the_user_count_whenever_a_file_is_read(tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match="more than the 767 allowed; --max-pixels 768"):
        read(tmp_path, decoding=Decoding(max_pixels=767))
    data = read(tmp_path, decoding=Decoding(max_pixels=768))
    assert {sample.decoding.max_pixels for sample in (*data.train, *data.test)} == {768}


def test_extra_data_that_was_ignored_is_told(tmp_path):
    (make(tmp_path) / "train" / "a" / "1.png").write_bytes(png(ramp(), 2, 8, damaged(b"iCCP"), damaged(b"tEXt")))
    assert read(tmp_path).remarks == (
        "1 PNG with damaged or huge extra data (iCCP, tEXt), read without it: train/a/1.png",
    )


def test_warnings_of_pillow_get_the_names_of_their_files(tmp_path, recwarn):
    folder = make(tmp_path) / "train" / "a"
    for number in (1, 2):
        exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
        Image.fromarray(ramp()).save(folder / f"{number}.jpg", exif=exif)
    (remark,) = read(tmp_path).remarks
    assert remark.startswith("2 images with a warning, 'Corrupt EXIF data")
    assert remark.endswith(": train/a/1.jpg, train/a/2.jpg")
    assert not list(recwarn)


def test_warnings_of_others_are_shown_as_ever(recwarn):
    warned = check._Warned()
    with warned.collected():
        warnings.warn("something else", stacklevel=1)
        with warned.while_reading("a.jpg"):
            warnings.warn("of the file", stacklevel=1)
    assert warned.found == {"of the file": ["a.jpg"]}


def test_a_warning_of_a_file_that_is_not_read_is_no_remark():
    facts = {"good.jpg": Facts()}
    assert check.remarks(facts, {"oh": ["bad.jpg"]}, Decoding()) == []
    assert check.remarks(facts, {"oh": ["bad.jpg", "good.jpg"]}, Decoding()) == [
        "1 image with a warning, 'oh': good.jpg"
    ]


SILENT = """
import sys
from pathlib import Path
from common.data.folder import read_folder
from common.system.errors import UserError
try:
    read_folder(sys.argv[1], progress=False)
except UserError as error:
    print(error)
"""


def test_libtiff_prints_nothing_under_a_name_of_its_own(tmp_path):
    """libtiff writes to the standard error of the process, so that another is needed to see it."""
    path = make(tmp_path) / "train" / "a" / "1.tif"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path, compression="tiff_lzw")
    content = bytearray(path.read_bytes())
    for place in range(8, 1000):
        content[place] ^= 0x5A
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", SILENT, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "train/a/1.tif: damaged: its values cannot be decoded" in done.stdout
    assert done.stderr == ""
