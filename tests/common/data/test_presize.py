"""Pictures reduced as they are decoded: what Pillow makes with draft and resize, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from common.data.images import UnreadableImage, count_pixels, open_rgb, reduced_size, upright_size

ORIENTATION = 0x0112


def write(path: Path, size: tuple[int, int], mode: str = "RGB", orientation: int = 1) -> Path:
    """A smooth picture with some noise, whose four corners differ."""
    generator = np.random.default_rng(3)
    coarse = generator.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int64)
    noisy = np.clip(smooth + generator.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(noisy).convert(mode).save(path, exif=exif)
    return path


def by_pillow(path: Path, size: tuple[int, int], scale: int) -> np.ndarray:
    """The picture by plain Pillow, `size` being its width and height as it is stored."""
    with Image.open(path) as image:
        width, height = image.size
        _, box = image.draft(None, size)
        assert image.size == (-(-width // scale), -(-height // scale))
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS, box)
    return np.asarray(ImageOps.exif_transpose(small))


# Sizes whose sides no eighth divides, decoded at each of JPEG's scales.
@pytest.mark.parametrize(
    ("size", "short_side", "reduced", "scale"),
    [
        ((1001, 667), 80, (120, 80), 8),
        ((403, 611), 100, (100, 152), 4),
        ((333, 250), 100, (133, 100), 2),
        ((199, 150), 100, (133, 100), 1),
        ((800, 600), 75, (100, 75), 8),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_what_pillow_makes(tmp_path, size, short_side, reduced, scale, orientation, mode) -> None:
    path = write(tmp_path / "a.jpg", size, mode, orientation)
    picture = open_rgb(path, short_side)
    assert (picture.mode, picture.size) == ("RGB", reduced if orientation == 1 else reduced[::-1])
    np.testing.assert_array_equal(np.asarray(picture), by_pillow(path, reduced, scale))


def test_a_jpeg_is_decoded_at_a_fraction(tmp_path) -> None:
    path = write(tmp_path / "a.jpg", (1001, 667))
    whole = np.asarray(open_rgb(path).resize((120, 80), Image.Resampling.LANCZOS), np.int64)
    difference = np.abs(np.asarray(open_rgb(path, 80), np.int64) - whole)
    assert 0 < difference.mean() < 2


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_other_formats_are_resized_whole(tmp_path, name) -> None:
    path = write(tmp_path / name, (201, 150), orientation=6)
    with Image.open(path) as image:
        image.load()
        # Pillow turns a TIFF as it loads it.
        size = (60, 80) if name == "a.tif" else (80, 60)
        expected = ImageOps.exif_transpose(image.resize(size, Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(np.asarray(open_rgb(path, 60)), np.asarray(expected))


def test_transparency_is_laid_on_white_before(tmp_path) -> None:
    """A picture whose hidden pixels are black has no dark seam."""
    pixels = np.full((90, 120, 4), 255, np.uint8)
    pixels[:, 60:] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.asarray(open_rgb(tmp_path / "a.png", 30)).min() == 255


@pytest.mark.parametrize("short_side", [None, 60, 61, 500])
def test_nothing_is_enlarged(tmp_path, short_side) -> None:
    path = write(tmp_path / "a.jpg", (91, 60), orientation=6)
    np.testing.assert_array_equal(np.asarray(open_rgb(path, short_side)), np.asarray(open_rgb(path)))
    assert upright_size(path, short_side) == (60, 91)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("short_side", [None, 47])
def test_the_size_is_known_before(tmp_path, name, orientation, short_side) -> None:
    path = write(tmp_path / name, (211, 97), orientation=orientation)
    picture = open_rgb(path, short_side)
    assert upright_size(path, short_side) == picture.size
    assert count_pixels(path, short_side) == picture.width * picture.height
    assert min(picture.size) == (short_side or 97)


def test_a_line_of_pixels_keeps_its_width() -> None:
    assert reduced_size((1, 5000), 32) == (1, 5000)
    assert reduced_size((5000, 33), 32) == (4848, 32)


def test_a_jpeg_cut_short_is_unreadable(tmp_path) -> None:
    path = write(tmp_path / "a.jpg", (1001, 667))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UnreadableImage, match="truncated"):
        open_rgb(path, 80)
