"""Make small pictures that a page holds inside itself."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import ImageOps

from common.data.images import UnreadableImage, open_rgb

SIDE = 160
"""The longer side of a thumbnail in pixels; pages show it smaller."""


def thumbnail(path: Path, side: int = SIDE) -> str | None:
    """Return one picture as a WebP data URI, or None if it cannot be read.

    Args:
        path: The picture.
        side: Its longer side in the thumbnail, in pixels.
    """
    try:
        picture = ImageOps.contain(open_rgb(path), (side, side))
    except (UnreadableImage, OSError):
        return None
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=72, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
