"""Decode image files to upright 8-bit RGB pictures, the same way for every backend."""

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before they are decoded; Pillow's own warning begins a little above, at 89 million."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings of file names that count as images, in lower case."""

# Naming the formats keeps Pillow from starting Ghostscript for an EPS file that is called .jpg.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# The filter that reduces a picture: of Pillow's, crops of the result differ least from those of the whole picture.
REDUCTION = Image.Resampling.LANCZOS

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The orientations in which width and height change places.
_LYING = (5, 6, 7, 8)


class UnreadableImage(Exception):
    """A file that cannot be decoded to a whole picture: `path` says which, `reason` says why in a few words."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Pickle path and reason, so that the exception comes whole out of a worker process."""
        return type(self), (self.path, self.reason)


def open_rgb(path: str | os.PathLike[str], short_side: int | None = None) -> Image.Image:
    """Decode one image file completely, to an upright picture (EXIF orientation applied) in mode RGB.

    Transparency is laid on white; 16-bit grey is scaled by its full range (65,535 to 255); an animation gives its first
    frame. A picture to be reduced is resized by Pillow after a JPEG has been decoded at 1/2, 1/4 or 1/8 of its size
    where that is large enough (Pillow's `draft`), for less than half of the time.

    Args:
        path: The file, in one of the formats JPEG, PNG, WebP, BMP, GIF, TIFF and PPM.
        short_side: The short side in pixels to which a larger picture is reduced; None for the picture as it is.

    Returns:
        The picture.

    Raises:
        UnreadableImage: The file is missing, no image, cut short, above MAX_PIXELS, or of float or 32-bit values.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableImage(path, f"{width} x {height} pixels, more than the {MAX_PIXELS:,} allowed")
            size = reduced_size(image.size, short_side)
            reduced = size != image.size
            drafted = image.draft(None, size) if reduced else None
            image.load()
            picture = _to_rgb(image, path)
            if reduced:
                # The sides of a JPEG decoded smaller are rounded up; only this part of it is the picture.
                picture = picture.resize(size, REDUCTION, drafted[1] if drafted else None)
            return _upright(picture, _orientation(image))
    except UnreadableImage:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise almost anything
        raise UnreadableImage(path, _reason(error)) from error


def reduced_size(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Return the size of a picture of `size`, width and height, once its short side is at most `short_side` pixels.

    >>> reduced_size((4000, 3000), 220), reduced_size((4000, 3000), None), reduced_size((90, 60), 220)
    ((293, 220), (4000, 3000), (90, 60))

    Args:
        size: Width and height in pixels.
        short_side: The largest short side, in pixels; None for any.

    Returns:
        Width and height in pixels, in the same ratio up to rounding, and never larger.
    """
    shortest = min(size)
    if short_side is None or shortest <= short_side:
        return size
    width, height = (round(short_side * side / shortest) for side in size)
    return width, height


def count_pixels(path: str | os.PathLike[str], short_side: int | None = None) -> int:
    """Count the pixels of the picture that `open_rgb` makes of a file, from its header alone.

    Args:
        path: The file.
        short_side: As in `open_rgb`.

    Returns:
        Width times height.

    Raises:
        UnreadableImage: The file is missing or no image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return math.prod(reduced_size(image.size, short_side))
    except Exception as error:
        raise UnreadableImage(path, _reason(error)) from error


def upright_size(path: str | os.PathLike[str], short_side: int | None = None) -> tuple[int, int]:
    """Return the size of the picture that `open_rgb` makes of a file, mostly from its header alone.

    Args:
        path: The file.
        short_side: As in `open_rgb`.

    Returns:
        Width and height in pixels, exchanged where EXIF says that the picture lies on its side.

    Raises:
        UnreadableImage: The file is missing or no image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = reduced_size(image.size, short_side)
            # Pillow gives the size of a TIFF upright.
            turned = _orientation(image) in _LYING and image.format != "TIFF"
            return (height, width) if turned else (width, height)
    except Exception as error:
        raise UnreadableImage(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than the {MAX_PIXELS:,} pixels allowed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return EXIF's number for how the picture is turned, 1 (upright) where it does not say."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # a damaged EXIF block says nothing against the picture itself
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImage(path, "floating-point values, which have no fixed range")
    if image.mode.startswith("I"):
        return _from_16_bit(image, path).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage(path, "32-bit grey values, which have no fixed range")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
