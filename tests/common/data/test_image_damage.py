"""Files that are damaged or extreme: what is read in spite of it, and what is said."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from common.data.images import Decoding, Facts, UnreadableImage, count_pixels, decode, open_rgb, upright_size
from tests.common.data.raw_files import chunk, png
from tests.common.data.test_images import ramp

LOAD = Decoding(load_truncated=True)


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))


def encoded(kind: str, **options) -> bytes:
    stream = io.BytesIO()
    noise().save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 100, 1500])
def test_a_jpeg_without_its_end_is_read_if_asked(tmp_path, progressive, missing):
    whole = encoded("JPEG", progressive=progressive)
    (tmp_path / "whole.jpg").write_bytes(whole)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:-missing])
    with pytest.raises(UnreadableImage, match="truncated: .*; --bad-images load reads it"):
        open_rgb(path)
    picture, facts = decode(path, None, LOAD)
    assert facts == Facts(cut_short=True)
    first = np.asarray(picture)[:8] if not progressive else np.asarray(picture)[:8].mean()
    expected = np.asarray(open_rgb(tmp_path / "whole.jpg"))[:8]
    if progressive:
        assert abs(first - expected.mean()) < 20
    else:
        assert np.array_equal(first, expected)
    assert upright_size(path) == picture.size == (64, 64)
    assert open_rgb(path, 16, LOAD).size == (16, 16)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_whole_jpeg_is_the_same_with_and_without_the_option(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    picture, facts = decode(tmp_path / "a.jpg", None, LOAD)
    assert facts == Facts()
    assert picture.tobytes() == open_rgb(tmp_path / "a.jpg").tobytes()


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_other_files_without_their_end_are_not_read(tmp_path, kind):
    (tmp_path / "a.jpg").write_bytes(encoded(kind)[:-400])
    for decoding in (Decoding(), LOAD):
        with pytest.raises(UnreadableImage) as caught:
            open_rgb(tmp_path / "a.jpg", decoding=decoding)
        assert "--bad-images" not in caught.value.reason


def damaged(name: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    whole = chunk(name, b"damaged")
    return whole[:-1] + bytes([whole[-1] ^ 1])


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("name", [b"iCCP", b"tEXt", b"gAMA", b"eXIf", b"prVt"])
def test_a_png_is_read_without_what_no_pixel_depends_on(tmp_path, name):
    path = tmp_path / "a.png"
    path.write_bytes(png(ramp(), 2, 8, damaged(name)))
    picture, facts = decode(path)
    assert np.array_equal(np.asarray(picture), ramp())
    assert facts == Facts(ignored=(name.decode(),))
    assert upright_size(path) == (32, 24)
    assert count_pixels(path) == 32 * 24


@pytest.mark.parametrize("name", [b"tRNS", b"IHDR"])
def test_a_png_is_not_read_without_what_its_pixels_depend_on(tmp_path, name):
    content = png(ramp(), 2, 8, chunk(b"tRNS", bytes(6)), damaged(b"tEXt"))
    place = content.index(name)
    length = struct.unpack_from(">I", content, place - 4)[0]
    content = bytearray(content)
    content[place + 4 + length] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImage, match="damaged|broken|checksum"):
        open_rgb(tmp_path / "a.png")


def test_orientation_and_transparency_outlive_the_repair(tmp_path):
    values = ramp()
    key = struct.pack(">3H", *values[0, 0].tolist())
    path = tmp_path / "a.png"
    path.write_bytes(png(values, 2, 8, chunk(b"tRNS", key), chunk(b"eXIf", exif(6)), damaged(b"iCCP")))
    expected = values.copy()
    expected[0, 0] = 255
    assert np.array_equal(np.asarray(open_rgb(path)), np.rot90(expected, -1))
    assert upright_size(path) == (24, 32)


@pytest.mark.parametrize("name", ["profile", "text"])
def test_huge_profiles_and_texts(tmp_path, name):
    content = zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))
    extra = chunk(b"iCCP" if name == "profile" else b"zTXt", b"name\0\0" + content)
    path = tmp_path / "a.png"
    path.write_bytes(png(ramp(), 2, 8, extra))
    assert np.array_equal(np.asarray(open_rgb(path)), ramp())
    path.write_bytes(png(ramp(), 2, 8, extra)[:-60])
    with pytest.raises(UnreadableImage) as caught:
        open_rgb(path)
    assert "MAX_TEXT" not in caught.value.reason


def test_more_pixels_are_read_if_they_are_allowed(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="32 x 24 pixels, more than the 767 allowed; --max-pixels 768 reads it"):
        open_rgb(tmp_path / "a.png", decoding=Decoding(max_pixels=767))
    assert open_rgb(tmp_path / "a.png", decoding=Decoding(max_pixels=768)).size == (32, 24)


def test_200_megapixels(tmp_path):
    """More than Pillow itself allows: 179 million. The header alone is looked at, and a small part of the data."""
    header = struct.pack(">IIBBBBB", 16320, 12240, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(12240 * (1 + 16320 // 8)), 1)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    (tmp_path / "a.png").write_bytes(start + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    with pytest.raises(UnreadableImage, match="--max-pixels 199756800 reads it"):
        open_rgb(tmp_path / "a.png")
    assert upright_size(tmp_path / "a.png") == (16320, 12240)
    (tmp_path / "a.png").write_bytes(start + chunk(b"IDAT", rows[:100]) + chunk(b"IEND", b""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImage, match="truncated|broken|damaged"):
            open_rgb(tmp_path / "a.png", decoding=Decoding(max_pixels=200_000_000))


@pytest.mark.parametrize("size", [(65000, 1), (1, 65000), (60000, 2), (2001, 10), (10, 2001)])
def test_what_is_too_long_is_refused(tmp_path, size):
    Image.new("1", size).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match=f"{size[0]} x {size[1]} pixels, one side more than 200 times the other"):
        open_rgb(tmp_path / "a.png")


def test_a_long_panorama_is_read(tmp_path):
    Image.new("1", (2000, 10)).save(tmp_path / "a.png")
    assert open_rgb(tmp_path / "a.png").size == (2000, 10)


def test_no_permission(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "a.jpg").chmod(0)
    if os.access(tmp_path / "a.jpg", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UnreadableImage, match="Permission denied"):
        open_rgb(tmp_path / "a.jpg")
