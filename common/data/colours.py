"""Turn the values of a decoded image, of whatever mode and number of bits, into 8-bit RGB."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

FULL = 65535
"""The largest value of 16 bits."""
DARK = 4
"""An image is far darker than its range if no value is above this fraction of it."""

_WHITE = 255
# Values that are turned at once, so that a large image takes little memory beside itself.
_BLOCK = 1 << 20
_DEEP = re.compile(r";16([LBN])$")
# The bytes of a 16-bit value that Pillow's way of reading 8-bit colours takes, exchanged.
_EXCHANGED = {"L": "B", "B": "L", "N": "B"}


@dataclass(frozen=True)
class Raw:
    """An image as it lies in its file, before Pillow decodes it."""

    deep: bool
    """Whether it has colours of 16 bits, of which Pillow keeps the upper 8."""
    bits: int
    """Bits of a grey value where these are fewer than 8, else 8."""
    whole_range: bool
    """Whether values of mode I are of 16 bits."""


_ORDINARY = Raw(False, 8, True)


def inspect(image: ImageFile.ImageFile) -> Raw:
    """Return what has to be known of an opened image that is not decoded yet."""
    if image.format not in ("PNG", "TIFF"):
        return _ORDINARY
    names = [_raw_mode(tile.args) for tile in image.tile]
    small = next((int(name[2:]) for name in names if name in ("L;2", "L;4")), 8)
    short = image.format != "TIFF" or any(";16" in name for name in names)
    return Raw(any(_DEEP.search(name) for name in names) and not image.mode.startswith("I"), small, short)


def _raw_mode(args: Any) -> str:
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def read_low_bytes(image: ImageFile.ImageFile) -> Image.Image:
    """Decode an opened image of 16-bit colours so that of each value the lower 8 bits are kept, not the upper."""

    def exchanged(args: Any) -> Any:
        swap = _DEEP.sub(lambda found: f";16{_EXCHANGED[found[1]]}", _raw_mode(args))
        return (swap, *args[1:]) if isinstance(args, tuple) else swap

    image.tile = [tile._replace(args=exchanged(tile.args)) for tile in image.tile]
    image.load()
    return image


def to_rgb(
    image: Image.Image, raw: Raw, low_bytes: Callable[[], Image.Image], image_range: int | None
) -> tuple[Image.Image, int | None]:
    """Turn a decoded image into 8-bit RGB; what is transparent is laid on white.

    Args:
        image: The image.
        raw: What `inspect` said of it.
        low_bytes: Returns the lower bytes of an image of 16-bit colours, in the same mode.
        image_range: The value that stands for white in images of more than 8 bits; None for the largest of 16 bits.

    Returns:
        The picture, and its largest value where that is no more than a quarter of the range, else None.

    Raises:
        ValueError: The values have no fixed range.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_grey(image, raw, image_range)
    if raw.deep and image.mode in ("RGB", "RGBA"):
        return _from_deep(image, low_bytes, image_range)
    key = image.info.get("transparency")
    if raw.bits < 8 and isinstance(key, int):
        image.info["transparency"] = key * _WHITE // (2**raw.bits - 1)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _on_white(image.convert("RGBA")), None
    return image.convert("RGB"), None


def _on_white(rgba: Image.Image) -> Image.Image:
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _from_grey(image: Image.Image, raw: Raw, image_range: int | None) -> tuple[Image.Image, int | None]:
    """Scale grey values of 16 or more bits to 8."""
    least, largest = _extrema(image)[0]
    if image_range is None:
        if image.mode == "F":
            raise ValueError("floating-point values, which have no fixed range; --image-range says what is white")
        if not raw.whole_range or largest > FULL:
            raise ValueError("32-bit grey values, which have no fixed range; --image-range says what is white")
        if least < 0:
            raise ValueError("grey values below 0, which have no fixed range; --image-range says what is white")
    values = np.asarray(image)
    scaled = _scaled(values, image_range or FULL)
    key = image.info.get("transparency")
    if isinstance(key, int):
        scaled[values == key] = _WHITE
    return Image.fromarray(scaled).convert("RGB"), _if_dark(largest, image_range)


def _from_deep(
    image: Image.Image, low_bytes: Callable[[], Image.Image], image_range: int | None
) -> tuple[Image.Image, int | None]:
    """Turn an image whose colours have 16 bits; only where more than the upper 8 are asked for are these read."""
    key = image.info.pop("transparency", None)
    dark = _extrema(image)[:3, 1].max() < (FULL + 1) // 256 // DARK
    if image_range is None and key is None and not dark:
        return (_on_white(image) if image.mode == "RGBA" else image), None
    values = np.asarray(image).astype(np.uint16) << 8
    values |= np.asarray(low_bytes())
    pixels = np.array(image) if image_range is None else _scaled(values, image_range)
    if image.mode == "RGBA":
        pixels[..., 3] = np.asarray(image)[..., 3]
    if isinstance(key, Sequence):
        pixels[(values == np.asarray(key, np.uint16)).all(axis=2)] = _WHITE
    picture = Image.fromarray(pixels)
    largest = _if_dark(int(values[..., :3].max()), image_range)
    return (_on_white(picture) if picture.mode == "RGBA" else picture), largest


def _extrema(image: Image.Image) -> NDArray[Any]:
    """Return the least and the largest value of each channel: (channels, 2)."""
    return np.asarray(image.getextrema()).reshape(-1, 2)


def _scaled(values: NDArray[Any], white: int) -> NDArray[np.uint8]:
    """Return values of 0 to `white` as 0 to 255, rounded; those beyond become 0 and 255."""
    out = np.empty(values.shape, np.uint8)
    table = _table(white) if values.dtype.kind == "u" and values.itemsize == 2 else None
    step = max(1, _BLOCK // max(values[0].size, 1))
    for row in range(0, len(values), step):
        block = values[row : row + step]
        out[row : row + step] = _scale(block, white) if table is None else table[block]
    return out


@cache
def _table(white: int) -> NDArray[np.uint8]:
    """Return what becomes of each value of 16 bits."""
    return _scale(np.arange(FULL + 1), white)


def _scale(values: NDArray[Any], white: int) -> NDArray[np.uint8]:
    shares = np.clip(np.nan_to_num(values.astype(np.float64)), 0, white) * _WHITE / white
    return np.floor(shares + 0.5).astype(np.uint8)


def _if_dark(largest: float, image_range: int | None) -> int | None:
    return int(largest) if 0 < largest <= (image_range or FULL) // DARK else None
