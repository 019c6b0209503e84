import pickle

import numpy as np
import pytest
from PIL import Image, ImageFile

from common.data.images import UnreadableImage, open_rgb


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    """A picture whose four corners differ, so that every turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40)], axis=2).astype(np.uint8)


def test_rgb_comes_back_exactly(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    picture = open_rgb(tmp_path / "a.png")
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), ramp())


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_opaque_modes_become_rgb_of_the_same_look(tmp_path, mode):
    source = Image.new("RGB", (20, 10), "white")
    source.paste((0, 0, 0), (0, 0, 10, 10))
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "LAB") else "a.png")
    if mode == "LAB":
        values = np.zeros((10, 20, 3), np.uint8)
        values[:, 10:, 0] = 255
        Image.fromarray(values, "LAB").save(path)
    else:
        source.convert(mode).save(path)
    found = np.asarray(open_rgb(path)).astype(int)
    assert found.shape == (10, 20, 3)
    assert found[5, 3].max() < 6
    assert found[5, 15].min() > 249


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = np.asarray(open_rgb(tmp_path / "a.jpg"))[8, 8]
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path, mode):
    if mode == "P":
        picture = Image.new("P", (8, 8), 3)
        picture.putpalette([0, 0, 0, 10, 10, 10, 20, 20, 20, 200, 0, 0])
        picture.save(tmp_path / "a.png", transparency=3)
    else:
        Image.new(mode, (8, 8), (0,) * len(mode)).save(tmp_path / "a.png")
    assert np.asarray(open_rgb(tmp_path / "a.png")).min() == 255


def test_half_transparent_black_is_mid_grey(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert np.asarray(open_rgb(tmp_path / "a.png"))[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535]], np.uint16).repeat(4, axis=0)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert np.asarray(open_rgb(tmp_path / f"a.{suffix}"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("largest", [199, 65535, 65536])
def test_values_of_32_bits_are_refused(tmp_path, largest):
    Image.fromarray(np.array([[0, largest]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match="32-bit"):
        open_rgb(tmp_path / "a.tif")


def test_float_values_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match="floating-point"):
        open_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    upright = ramp()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.png")), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_refuse_the_picture(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert open_rgb(tmp_path / "a.jpg").size == (32, 24)


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.8])
def test_a_file_cut_short_is_unreadable(tmp_path, kind, part):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    options = {"progressive": True} if kind == "progressive" else {}
    Image.fromarray(noise).save(tmp_path / "whole", "JPEG" if options else kind, **options)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(UnreadableImage) as caught:
        open_rgb(tmp_path / "cut.jpg")
    assert caught.value.path == tmp_path / "cut.jpg"
    assert caught.value.reason
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableImage, match="no such file"):
        open_rgb(tmp_path / "a.jpg")


def test_the_error_survives_the_way_from_a_worker_process():
    error = pickle.loads(pickle.dumps(UnreadableImage("a/b.jpg", "cut off")))
    assert (str(error), error.reason) == ("a/b.jpg: cut off", "cut off")
