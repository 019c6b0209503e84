"""Make small pictures that a page holds inside itself."""

from __future__ import annotations

import base64
import io

from PIL import ImageOps

from common.data.folder import Sample, read_file
from common.data.images import UnreadableImage

SIDE = 160
"""The longer side of a thumbnail in pixels; pages show it smaller."""


def thumbnail(sample: Sample, side: int = SIDE) -> str | None:
    """Return one picture as a WebP data URI, or None if it cannot be read.

    Args:
        sample: The picture.
        side: Its longer side in the thumbnail, in pixels.
    """
    try:
        picture = ImageOps.contain(read_file(sample), (side, side))
    except (UnreadableImage, OSError):
        return None
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=72, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
