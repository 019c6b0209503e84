"""Where the pixels of a batch's squares look in their images, as whole numbers that a device can compute with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.preprocessing.crops import Cut

# Rows of pixels are kept in pieces of this many, so that images of any size lie in one array with little between them.
SEGMENT = 32
# A weight is a whole number of parts of 2 to the power of -22, as in Pillow (PRECISION_BITS in Resample.c), in two
# digits of 11 bits: sums of either over 8-bit values are exact in float32, for up to 32 pixels at once.
DIGIT = 2**11


class Places(NamedTuple):
    """Where a batch of N images is, and where the pixels of its N squares look. Whole numbers below 2**31."""

    segments: NDArray[np.int64]
    """(2, N): number of the image's first segment, and segments in each of its rows."""
    turned: NDArray[np.bool_]
    """(N,): whether it is resized along its columns first, and along its rows afterwards."""
    first: NDArray[np.int64]
    """(5, N): along the axis that is resized first, `unit`, `start`, `step`, `reach` and `length`. Pixel x of the
    `length` pixels of the image has its middle at (2 x + 1) unit, output pixel i looks at start + i step, and the
    pixels within `reach` of that count."""
    second: NDArray[np.int64]
    """(5, N): the same along the other axis."""


@dataclass(frozen=True)
class Frame:
    """What a batch is computed with besides its arrays; a compiled function may depend on it."""

    height: int
    """Rows that are gathered of every image of the batch; those below a smaller image count for nothing."""
    width: int
    """Pixels that are gathered of every row, a multiple of SEGMENT."""
    turns: bool
    """Whether some images are turned; height and width are equal then."""
    side: int
    """Side of the square that each becomes."""
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def places_of(found: Sequence[tuple[int, int, int]], cuts: Sequence[Cut], side: int) -> Places:
    """Where images, given by first segment, width and height, and the pixels of their cuts are."""
    first, *sizes = np.array(found, np.int64).T
    boxes, resized, corners = (
        np.array([getattr(cut, name) for cut in cuts], np.int64).T for name in ("box", "resized", "corner")
    )
    mirrored = np.array([cut.mirrored for cut in cuts])
    axes = []
    for axis, length in enumerate(sizes):
        # In units of 1 / (2 resized) of a pixel everything is a whole number.
        extent, unit = boxes[axis + 2] - boxes[axis], resized[axis]
        start, step = 2 * unit * boxes[axis] + (2 * corners[axis] + 1) * extent, 2 * extent
        if axis == 0:
            start, step = np.where(mirrored, start + (side - 1) * step, start), np.where(mirrored, -step, step)
        # Pillow's triangle is as wide as the step, and where it enlarges an image, as a pixel.
        axes.append(np.stack([unit, start, step, 2 * np.maximum(extent, unit), length]))
    # Pillow (13.0) resizes columns first where that is less work by this rule; rounding in between makes it differ.
    turned = sizes[1] - resized[1] > 2 * np.maximum(sizes[0] - resized[0], 0)
    across, down = np.where(turned, axes[::-1], axes)
    return Places(np.stack([first, segments_across(sizes[0])]), turned, across, down)


def segments_across(width: Any) -> Any:
    """Segments in a row of `width` pixels."""
    return -(-width // SEGMENT)
