"""Images of more or fewer than 8 bits, of unknown range, transparent, or in the colours of print."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from common.data import colours
from common.data.images import Decoding, UnreadableImage, decode, open_rgb
from tests.common.data.raw_files import chunk, png, tiff


def read(path, content, **decoding):
    path.write_bytes(content)
    return np.asarray(open_rgb(path, decoding=Decoding(**decoding)))


def dark(path, **decoding):
    return decode(path, None, Decoding(**decoding))[1].dark


def test_transparent_grey_is_compared_at_16_bits(tmp_path):
    values = np.array([[30000, 30001], [29999, 65535]])
    found = read(tmp_path / "a.png", png(values, 0, 16, chunk(b"tRNS", struct.pack(">H", 30000))))
    assert found[..., 0].tolist() == [[255, 117], [117, 255]]


def test_a_transparent_colour_is_compared_at_16_bits(tmp_path):
    values = np.array([[[40000, 10000, 0], [40001, 10000, 0]]])
    found = read(tmp_path / "a.png", png(values, 2, 16, chunk(b"tRNS", struct.pack(">HHH", 40000, 10000, 0))))
    assert found[0].tolist() == [[255, 255, 255], [156, 39, 0]]


@pytest.mark.parametrize(("bits", "packed", "key"), [(1, 0b01111111, 0), (2, 0b10_00_01_11, 2), (4, 0x5A, 5)])
def test_a_transparent_grey_of_few_bits(tmp_path, bits, packed, key):
    plain = read(tmp_path / "a.png", png(np.array([[packed]]), 0, bits))[0, :, 0]
    found = read(tmp_path / "b.png", png(np.array([[packed]]), 0, bits, chunk(b"tRNS", struct.pack(">H", key))))
    assert plain[0] == key * 255 // (2**bits - 1)
    assert found[0, :, 0].tolist() == [255, *plain[1:].tolist()]


def test_a_palette_with_an_alpha_for_each_colour(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 0, 0, 0, 200, 0, 0])
    picture.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert np.asarray(open_rgb(tmp_path / "a.png"))[0].tolist() == [[255] * 3, [127] * 3, [200, 0, 0]]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_transparent_frame(tmp_path, suffix):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((200, 0, 0, 255), (4, 0, 8, 8))
    picture.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert np.asarray(open_rgb(tmp_path / f"a.{suffix}"))[0, ::7].tolist() == [[255] * 3, [200, 0, 0]]


def test_colours_of_16_bits_keep_their_upper_bytes(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    for order in "<>":
        found = read(tmp_path / "a.tif", tiff(values, photometric=2, order=order))
        np.testing.assert_array_equal(found, values >> 8)
    np.testing.assert_array_equal(read(tmp_path / "a.png", png(values, 2, 16)), values >> 8)


@pytest.mark.parametrize("kind", ["png", "tiff little", "tiff big", "tiff lzw", "alpha"])
def test_a_range_scales_colours_of_16_bits(tmp_path, kind):
    values = np.random.default_rng(0).integers(0, 4096, (5, 7, 3)).astype(np.uint16)
    expected = (values.astype(int) * 255 + 2047) // 4095
    opaque = np.concatenate([values, np.full((5, 7, 1), 65535)], axis=2)
    content = {
        "png": lambda: png(values, 2, 16),
        "tiff little": lambda: tiff(values, photometric=2),
        "tiff big": lambda: tiff(values, photometric=2, order=">"),
        "tiff lzw": lambda: _lzw(tiff(values, photometric=2)),
        "alpha": lambda: png(opaque, 6, 16),
    }[kind]()
    np.testing.assert_array_equal(read(tmp_path / "a", content, image_range=4095), expected)
    assert dark(tmp_path / "a") == values.max()
    assert dark(tmp_path / "a", image_range=4095) is None


def _lzw(content):
    """The same TIFF, its only strip compressed by LZW in its simplest form: a clear code before every byte."""
    place = struct.unpack_from("<H", content, 8)[0]
    entries = [struct.unpack_from("<HHII", content, 10 + 12 * number) for number in range(place)]
    offset = next(value for tag, _, _, value in entries if tag == 273)
    bits = "".join(f"{256:09b}{byte:09b}" for byte in content[offset:]) + f"{257:09b}"
    packed = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    changed = {259: 5, 279: len(packed)}
    body = b"".join(struct.pack("<HHII", *entry[:3], changed.get(entry[0], entry[3])) for entry in entries)
    return content[:10] + body + content[10 + len(body) : offset] + packed


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
def test_a_range_scales_grey_of_16_bits(tmp_path, suffix):
    values = np.array([[0, 1, 2048, 4095, 5000]], np.uint16).repeat(5, axis=0)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    found = open_rgb(tmp_path / f"a.{suffix}", decoding=Decoding(image_range=4095))
    assert np.asarray(found)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_an_image_far_darker_than_its_range_is_told(tmp_path):
    for largest, expected in ((4095, 4095), (16383, 16383), (16384, None), (65535, None), (0, None)):
        Image.fromarray(np.array([[0, largest]], np.uint16)).save(tmp_path / "a.png")
        assert dark(tmp_path / "a.png") == expected
    Image.fromarray(np.array([[0, 900]], np.uint16)).save(tmp_path / "a.png")
    assert dark(tmp_path / "a.png", image_range=4095) == 900
    Image.new("L", (4, 4), 3).save(tmp_path / "a.png")
    assert dark(tmp_path / "a.png") is None


@pytest.mark.parametrize(("kind", "type_"), [(1, np.uint32), (2, np.int32), (3, np.float32)])
def test_values_of_unknown_range_are_scaled_by_the_range_that_is_given(tmp_path, kind, type_):
    content = tiff(np.array([[0, 50, 100, 199]], type_), kind)
    with pytest.raises(UnreadableImage, match="no fixed range; --image-range says what is white"):
        read(tmp_path / "a.tif", content)
    assert read(tmp_path / "a.tif", content, image_range=199)[0, :, 0].tolist() == [0, 64, 128, 255]


def test_values_below_0(tmp_path):
    content = tiff(np.array([[-5, 100]], np.int16), 2)
    with pytest.raises(UnreadableImage, match="below 0"):
        read(tmp_path / "a.tif", content)
    assert read(tmp_path / "a.tif", content, image_range=100)[0, :, 0].tolist() == [0, 255]


def test_a_graymap_of_16_bits_is_of_known_range(tmp_path):
    found = read(tmp_path / "a.pgm", b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32768, 65535))
    assert found[0, :, 0].tolist() == [0, 128, 255]


def test_a_large_image_of_16_bits_takes_blocks_of_memory(tmp_path, monkeypatch):
    sizes = []
    scale = colours._scale

    def noted(values, white):
        sizes.append(values.nbytes)
        return scale(values, white)

    monkeypatch.setattr(colours, "_scale", noted)
    colours._table.cache_clear()
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.png")
    monkeypatch.setattr(colours, "_BLOCK", 1024)
    found = np.asarray(open_rgb(tmp_path / "a.png"))[..., 0]
    np.testing.assert_array_equal(found, (values.astype(int) + 128) // 257)
    content = tiff(values.astype(np.uint32))
    np.testing.assert_array_equal(read(tmp_path / "a.tif", content, image_range=65535)[..., 0], found)
    assert max(sizes[1:]) == 4 * 1024


def test_inverted_cmyk_of_adobe(tmp_path):
    """The values are stored inverted, with Adobe's mark."""
    stream = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(stream, "JPEG", quality=100)
    assert b"Adobe" in stream.getvalue()
    with Image.open(stream) as image:
        assert "CMYK;I" in image.tile[0].args
    pixel = read(tmp_path / "a.jpg", stream.getvalue())[8, 8]
    assert np.abs(pixel.astype(int) - (255, 0, 0)).max() < 10
