"""Decode image files to upright 8-bit RGB pictures, the same way for every backend."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from common.data import colours, formats, repair
from common.data.formats import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from common.spec.experiment import ExperimentSpec

MAX_PIXELS = ExperimentSpec.max_pixels
"""Larger pictures are refused before they are decoded, unless a user allows more."""

MAX_RATIO = 200
"""Pictures with a side more than so many times the other are refused: the short side is enlarged to the network's."""

# `_check_size` decides, by a limit that a user can set.
Image.MAX_IMAGE_PIXELS = None
# What Pillow warns of is told when the data are read (`common.data.check`), not again in every epoch.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

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


@dataclass(frozen=True)
class Decoding:
    """What a user chooses of the way image files are read."""

    max_pixels: int = MAX_PIXELS
    """The most pixels of a picture."""
    load_truncated: bool = False
    """Whether to read a JPEG that lacks its end, as far as it goes."""
    image_range: int | None = None
    """The value that stands for white where values have more than 8 bits; None for the largest of 16 bits."""

    @classmethod
    def of(cls, spec: ExperimentSpec) -> Decoding:
        """Return what an experiment chooses."""
        return cls(spec.max_pixels, spec.bad_images == "load", spec.image_range)


USUAL = Decoding()


@dataclass(frozen=True)
class Facts:
    """What there is to say of a file that was read."""

    dark: int | None = None
    """The largest value of a picture that uses no more than a quarter of its range, which has more than 8 bits."""
    cut_short: bool = False
    """Whether the file is a JPEG without its end."""
    ignored: tuple[str, ...] = ()
    """Damaged or huge parts of the file that no pixel depends on."""


def open_rgb(path: str | os.PathLike[str], short_side: int | None = None, decoding: Decoding = USUAL) -> Image.Image:
    """Decode one image file completely, to an upright picture (EXIF orientation applied) in mode RGB.

    Transparency is laid on white; values of 16 bits are scaled by their full range (65,535 to 255); of several pictures
    in a file the first is read. docs/images.md says what is read, and how. A picture to be reduced is resized by Pillow
    after a JPEG has been decoded at 1/2, 1/4 or 1/8 of its size where that is large enough (Pillow's `draft`), for less
    than half of the time.

    Args:
        path: The file, in one of the formats of `common.data.formats`, whatever its name.
        short_side: The short side in pixels to which a larger picture is reduced; None for the picture as it is.
        decoding: What the user chooses.

    Returns:
        The picture.
    """
    return decode(path, short_side, decoding)[0]


def decode(
    path: str | os.PathLike[str], short_side: int | None = None, decoding: Decoding = USUAL
) -> tuple[Image.Image, Facts]:
    """Decode one image file as `open_rgb` does, and say what there is to say of it.

    Args:
        path: The file.
        short_side: As in `open_rgb`.
        decoding: What the user chooses.

    Returns:
        The picture, and what there is to say; UnreadableImage is raised for a file that is missing, no image, cut
        short, too large or too long, or of values without a fixed range.
    """

    def read(content: bytes | None) -> tuple[Image.Image, int | None]:
        with formats.open_image(path, content) as image:
            _check_size(path, image.size, decoding)
            raw = colours.inspect(image)
            size = reduced_size(image.size, short_side)
            reduced = size != image.size
            drafted = image.draft(None, size) if reduced else None
            image.load()
            picture, dark = colours.to_rgb(image, raw, lambda: _low_bytes(path, content), decoding.image_range)
            if reduced:
                # The sides of a JPEG decoded smaller are rounded up; only this part of it is the picture.
                picture = picture.resize(size, REDUCTION, drafted[1] if drafted else None)
            return _upright(picture, _orientation(image)), dark

    (picture, dark), mended = _attempt(path, read, decoding)
    if mended is None:
        return picture, Facts(dark)
    return picture, Facts(dark, mended.cut_short, mended.ignored)


T = TypeVar("T")


def _attempt(
    path: str | os.PathLike[str], read: Callable[[bytes | None], T], decoding: Decoding
) -> tuple[T, repair.Mended | None]:
    """Read a file, or what can be mended of it.

    Args:
        path: The file.
        read: Reads the content that it is given, None for the file itself.
        decoding: What the user chooses.

    Returns:
        What `read` returns, and the content that it was given, None for the file itself.

    Raises:
        UnreadableImage: The file cannot be read.
    """
    try:
        try:
            return read(None), None
        except UnreadableImage:
            raise
        except Exception:  # damaged files make Pillow's decoders raise almost anything
            mended = repair.mend(path, decoding.load_truncated) if os.path.isfile(path) else None
            if mended is None:
                raise
            return read(mended.content), mended
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(path, _reason(path, error, decoding)) from error


def _low_bytes(path: str | os.PathLike[str], content: bytes | None) -> Image.Image:
    return colours.read_low_bytes(formats.open_image(path, content))


def _check_size(path: str | os.PathLike[str], size: tuple[int, int], decoding: Decoding) -> None:
    width, height = size
    if max(size) > MAX_RATIO * min(size):
        raise UnreadableImage(path, f"{width} x {height} pixels, one side more than {MAX_RATIO} times the other")
    if width * height > decoding.max_pixels:
        allowed = f"more than the {decoding.max_pixels:,} allowed"
        raise UnreadableImage(path, f"{width} x {height} pixels, {allowed}; --max-pixels {width * height} reads it")


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


def upright_size(
    path: str | os.PathLike[str], short_side: int | None = None, decoding: Decoding = USUAL
) -> tuple[int, int]:
    """Return the size of the picture that `open_rgb` makes of a file, mostly from its header alone.

    Args:
        path: The file.
        short_side: As in `open_rgb`.
        decoding: What the user chooses.

    Returns:
        Width and height in pixels, exchanged where EXIF says that the picture lies on its side; UnreadableImage is
        raised for a file that is missing or no image.
    """

    def read(content: bytes | None) -> tuple[int, int]:
        with formats.open_image(path, content) as image:
            width, height = reduced_size(image.size, short_side)
            # Pillow gives the size of a TIFF upright.
            turned = _orientation(image) in _LYING and image.format != "TIFF"
            return (height, width) if turned else (width, height)

    return _attempt(path, read, decoding)[0]


def count_pixels(path: str | os.PathLike[str], short_side: int | None = None, decoding: Decoding = USUAL) -> int:
    """Return width times height of the picture of a file; see `upright_size`."""
    return math.prod(upright_size(path, short_side, decoding))


def _reason(path: str | os.PathLike[str], error: Exception, decoding: Decoding) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return formats.unidentified(path)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    if "truncated" in text.lower():
        jpeg = formats.first_bytes(path).startswith(b"\xff\xd8")
        hint = "; --bad-images load reads it as far as it goes" if jpeg and not decoding.load_truncated else ""
        return f"truncated: the end of the file is missing{hint}"
    if "decoder error" in text or "encoder error" in text:
        return "damaged: its values cannot be decoded"
    return text


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
