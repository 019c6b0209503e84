"""Decode image files to upright 8-bit RGB pictures, the same way for every backend."""

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


def open_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """Decode one image file completely, to an upright picture (EXIF orientation applied) in mode RGB.

    Transparency is laid on white; 16-bit grey is scaled by its full range (65,535 to 255); an animation gives its first
    frame.

    Args:
        path: The file, in one of the formats JPEG, PNG, WebP, BMP, GIF, TIFF and PPM.

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
            image.load()
            return _to_rgb(_upright(image), path)
    except UnreadableImage:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise almost anything
        raise UnreadableImage(path, _reason(error)) from error


def count_pixels(path: str | os.PathLike[str]) -> int:
    """Count the pixels of the picture that `open_rgb` makes of a file, from its header alone.

    Args:
        path: The file.

    Returns:
        Width times height.

    Raises:
        UnreadableImage: The file is missing or no image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.width * image.height
    except Exception as error:
        raise UnreadableImage(path, _reason(error)) from error


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the size of the picture that `open_rgb` makes of a file, mostly from its header alone.

    Args:
        path: The file.

    Returns:
        Width and height in pixels, exchanged where EXIF says that the picture lies on its side.

    Raises:
        UnreadableImage: The file is missing or no image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            turned = _orientation(image) in _LYING
            return (image.height, image.width) if turned else image.size
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


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(image))
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
