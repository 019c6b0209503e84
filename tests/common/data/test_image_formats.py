"""Which files are read, whatever their names, and what is said of those that are not."""

import os
import socket

import numpy as np
import pillow_heif
import pytest
from PIL import Image, features

from common.data import formats
from common.data.folder import read_folder
from common.data.formats import IMAGE_SUFFIXES
from common.data.images import UnreadableImage, count_pixels, open_rgb, upright_size
from tests.common.data.test_images import ramp

KINDS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".mpo": "MPO", ".png": "PNG", ".webp": "WEBP",
    ".avif": "AVIF", ".jp2": "JPEG2000", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF", ".tga": "TGA",
    ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF",
}  # fmt: skip


def write(path, kind, picture=None, **options):
    pillow_heif.register_heif_opener()
    (picture or Image.fromarray(ramp())).save(path, kind, **options)
    return path


def test_every_suffix_is_tested():
    assert set(KINDS) == IMAGE_SUFFIXES


@pytest.mark.parametrize("upper", [False, True])
def test_pictures_of_all_suffixes_belong_to_a_folder(tmp_path, upper):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            write(tmp_path / split / name / "0.png", "PNG")
    for suffix, kind in KINDS.items():
        write(tmp_path / "train" / "a" / f"1{suffix.upper() if upper else suffix}", kind)
    data = read_folder(tmp_path, progress=False)
    assert len(data.train) == 2 + len(KINDS)
    for sample in data.train:
        found = np.asarray(data.read(sample)).astype(int)
        assert np.abs(found - ramp()).mean() < 8, sample.name


@pytest.mark.parametrize("kind", ["AVIF", "PNG", "HEIF", "JPEG2000", "GIF"])
@pytest.mark.parametrize("suffix", [".jpg", ".tga"])
def test_the_content_counts_not_the_name(tmp_path, kind, suffix):
    path = write(tmp_path / f"a{suffix}", kind)
    assert np.abs(np.asarray(open_rgb(path)).astype(int) - ramp()).mean() < 8
    assert upright_size(path) == (32, 24)
    assert count_pixels(path) == 32 * 24


def test_a_tga_is_known_by_its_name_alone(tmp_path):
    path = write(tmp_path / "a.jpg", "TGA")
    with pytest.raises(UnreadableImage, match="not an image in a known format"):
        open_rgb(path)


def test_heic_without_pillow_heif_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jpg", "HEIF")
    monkeypatch.setattr(formats, "_heic_is_read", lambda: False)
    with pytest.raises(UnreadableImage, match="a HEIC photograph; to read these, run: pip install pillow-heif"):
        open_rgb(path)


def test_avif_where_pillow_lacks_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x1cftypavif" + bytes(100))
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(UnreadableImage, match="an AVIF picture, which this Pillow cannot read; .*pip install"):
        open_rgb(tmp_path / "a.jpg")


def test_of_several_pictures_the_first_is_read(tmp_path):
    pages = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    for suffix, kind in ((".gif", "GIF"), (".webp", "WEBP"), (".tif", "TIFF"), (".mpo", "MPO"), (".png", "PNG")):
        path = tmp_path / f"a{suffix}"
        pages[0].save(path, kind, save_all=True, append_images=pages[1:])
        with Image.open(path) as image:
            assert image.n_frames == 2
        red, green, blue = np.asarray(open_rgb(path))[5, 5]
        assert (red > 245, green < 10, blue < 10) == (True, True, True), suffix


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "WEBP", "AVIF", "HEIF", "MPO", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / "a", kind, exif=exif.tobytes())
    for short_side in (None, 12):
        picture = open_rgb(tmp_path / "a", short_side)
        assert upright_size(tmp_path / "a", short_side) == picture.size
    lies = orientation > 4
    assert upright_size(tmp_path / "a") == ((24, 32) if lies else (32, 24))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(tmp_path / "a.png", "PNG", exif=exif)
    write(tmp_path / "a.tif", "TIFF", exif=exif)
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.tif")), np.asarray(open_rgb(tmp_path / "a.png")))


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    place = f"/proc/self/fd/{os.open(tmp_path, os.O_RDONLY)}/socket.jpg"  # a socket's path may have 107 characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        for name in (tmp_path / "pipe.jpg", tmp_path / "socket.jpg", "/dev/zero"):
            for read in (open_rgb, upright_size):
                with pytest.raises(UnreadableImage, match="not a regular file"):
                    read(name)
    with pytest.raises(UnreadableImage, match="a folder, not a file"):
        open_rgb(tmp_path / "folder.jpg")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (bytes(100), "not an image in a known format, but nothing but zeros"),
        (b"<html>404</html>", "not an image in a known format, but a web page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a known format$"),
        (b"\0\0\0\x18ftypisom....", "not an image in a known format, but a video"),
        (b"\x89PNG\r\n\x1a\nwhatever", "a PNG image that is damaged or of a kind that is not read"),
        (b"\0\0\0\x1cftypheic" + bytes(100), "a HEIC photograph that is damaged"),
        (b"\0\0\0\x1cftypavif" + bytes(100), "an AVIF picture that is damaged"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (open_rgb, upright_size, count_pixels):
        with pytest.raises(UnreadableImage, match=reason):
            read(tmp_path / "a.jpg")
