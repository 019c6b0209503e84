"""The geometry of a batch's resampling as whole numbers, from which a device computes resampling coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.preprocessing.crops import Cut

# Pixels per segment. Rows of pixels are kept in whole segments, so that images of any size lie in one array with few
# unused pixels between them.
SEGMENT = 32
# A resampling coefficient is a multiple of 2**-22 = DIGIT**-2, as in Pillow (PRECISION_BITS in Resample.c), in two
# digits of 11 bits: the sum of either digit times 8-bit values is exact in float32, for up to 32 pixels at once.
DIGIT = 2**11


class Places(NamedTuple):
    """The places of the N images of a batch, and the geometry of their resampling, in whole numbers below 2**31.

    Along an axis, in units of 1 / (2 resized) of a pixel, the middle of the image's pixel x is at (2 x + 1) unit, and
    that of output pixel i is at start + i step. Pixel x has a part in output pixel i where the two middles are less
    than `reach` apart. `common.contract.backend.Backend.resident_batch` has the formula of the coefficients.
    """

    segments: NDArray[np.int64]
    """(2, N): number of the image's first segment, and number of segments in each of its rows."""
    turned: NDArray[np.bool_]
    """(N,): whether the image is resized along its columns first and along its rows afterwards."""
    first: NDArray[np.int64]
    """(5, N): `unit`, `start`, `step`, `reach` and `length` of the axis that is resized first; `length` is the number
    of the image's pixels along it.
    """
    second: NDArray[np.int64]
    """(5, N): the same of the other axis."""
    content: NDArray[np.int64]
    """(4, N): left, top, right and bottom of the part of the square that the image covers."""


@dataclass(frozen=True)
class Frame:
    """The constants of a batch, which a function may be compiled for; its arrays are in `Places`."""

    height: int
    """Number of rows gathered of every image of the batch; the rows below a smaller image count for nothing."""
    width: int
    """Number of pixels gathered of every row, a multiple of SEGMENT."""
    turns: bool
    """Whether some images of the batch are turned; height and width are equal then."""
    side: int
    """Side of the square that each image becomes, in pixels."""
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padded: bool
    """Whether the squares may reach beyond the images: 0 stands there in the end."""


def places_of(found: Sequence[tuple[int, int, int]], cuts: Sequence[Cut], side: int) -> Places:
    """Work out where the images of a batch lie and how their cuts are resampled.

    With the image's box from b to b + extent, resized to `resized` pixels of which the square begins at `corner`:

        unit = resized
        start = 2 * resized * b + (2 * corner + 1) * extent
        step = 2 * extent
        reach = 2 * max(extent, resized)

    A mirrored image has the horizontal `start` of its last output pixel, and `step` is negative. Where the square is
    wider than the resized image, the image changes left and right inside the place that it has.

    Args:
        found: First segment, width and height in pixels of each image.
        cuts: How each image becomes a square.
        side: Side of the squares in pixels.

    Returns:
        The places of the N images.
    """
    first, *sizes = np.array(found, np.int64).T
    boxes, resized, corners = (
        np.array([getattr(cut, name) for cut in cuts], np.int64).T for name in ("box", "resized", "corner")
    )
    mirrored = np.array([cut.mirrored for cut in cuts])
    axes = []
    for axis, length in enumerate(sizes):
        # In units of 1 / (2 resized) of a pixel every position is a whole number.
        extent, unit = boxes[axis + 2] - boxes[axis], resized[axis]
        start, step = 2 * unit * boxes[axis] + (2 * corners[axis] + 1) * extent, 2 * extent
        if axis == 0:
            last = np.where(unit < side, unit - 1 - 2 * corners[axis], side - 1)
            start, step = np.where(mirrored, start + last * step, start), np.where(mirrored, -step, step)
        # Half the base of Pillow's triangle filter is a step, or a pixel where the image is enlarged.
        axes.append(np.stack([unit, start, step, 2 * np.maximum(extent, unit), length]))
    # Pillow (13.0) resizes columns first where this rule says that it is less work; the rounding between the two passes
    # makes the pixels depend on their order.
    turned = sizes[1] - resized[1] > 2 * np.maximum(sizes[0] - resized[0], 0)
    across, down = np.where(turned, axes[::-1], axes)
    corner = np.maximum(-corners, 0)
    content = np.concatenate([corner, np.minimum(corner + resized, side)])
    return Places(np.stack([first, segments_across(sizes[0])]), turned, across, down, content)


def segments_across(width: Any) -> Any:
    """Return the number of segments in a row of `width` pixels, a number or an array of them.

    >>> segments_across(33)
    2

    Args:
        width: Width in pixels.

    Returns:
        width / SEGMENT, rounded up.
    """
    return -(-width // SEGMENT)
