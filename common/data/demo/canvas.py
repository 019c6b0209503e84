"""The drawing tools of the demo pictures: a float canvas lit from one side, poses, outlines and noise.

Random draws use NumPy's RandomState, whose streams never change, so a picture is the same under every NumPy. Outlines
are in a food's own units (its length is about 1); a Pose turns them into pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Points = NDArray[np.float64]
Pixels = NDArray[np.float32]
Colour = tuple[float, float, float]

_NOISE_SIDE = 1024


@lru_cache(maxsize=4)
def _noise_field(finest: int) -> Pixels:
    random = np.random.RandomState(finest)
    field = np.zeros((_NOISE_SIDE, _NOISE_SIDE), np.float32)
    weight, cell = 1.0, 128
    while cell >= finest:
        grid = random.uniform(-1, 1, (_NOISE_SIDE // cell + 1,) * 2).astype(np.float32)
        grown = Image.fromarray(grid).resize((_NOISE_SIDE, _NOISE_SIDE), Image.Resampling.BICUBIC)
        field += np.float32(weight) * np.asarray(grown)
        weight, cell = weight * 0.75, cell // 2
    field /= np.abs(field).max()
    return field


@dataclass(frozen=True)
class Pose:
    """The place of a thing in the picture: its centre (x, y) in pixels, its scale and its turn.

    A thing is turned by `angle` (radians), squashed by `tilt` in y, and drawn at `scale` pixels per unit.
    """

    x: float
    y: float
    scale: float
    angle: float = 0.0
    tilt: float = 1.0

    def place(self, points: Points) -> list[tuple[float, float]]:
        """Turn points in a thing's own units into pixels, rounded to 1/64 of one.

        >>> Pose(100, 100, scale=10).place(np.array([[1.0, 0.5]]))
        [(110.0, 105.0)]

        Args:
            points: (N, 2) in own units.

        Returns:
            N pairs (x, y) in pixels.
        """
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x = self.x + self.scale * (points[:, 0] * cos - points[:, 1] * sin)
        y = self.y + self.scale * self.tilt * (points[:, 0] * sin + points[:, 1] * cos)
        # Rounded, because NumPy's sines differ in the last digit between versions, and Pillow's line joints show it.
        return list(zip((np.round(x * 64) / 64).tolist(), (np.round(y * 64) / 64).tolist(), strict=True))

    def part(self, u: float, v: float, turn: float = 0.0, size: float = 1.0) -> "Pose":
        """Return the pose of a piece of the thing.

        >>> Pose(100, 100, scale=10).part(1.0, 0.5, size=0.5)
        Pose(x=110.0, y=105.0, scale=5.0, angle=0.0, tilt=1.0)

        Args:
            u: Place of the piece along the thing, in its own units.
            v: Place of the piece across the thing.
            turn: Turn of the piece against the thing, in radians.
            size: Scale of the piece against the thing's.

        Returns:
            The pose.
        """
        ((x, y),) = self.place(np.array([[u, v]]))
        return replace(self, x=x, y=y, scale=self.scale * size, angle=self.angle + turn)


def planes(colour: Colour) -> Pixels:
    """Return a colour as an array (3, 1, 1), float32, to be spread over a picture's three planes."""
    return np.array(colour, np.float32)[:, None, None]


def line(length: float, bend: float = 0.0, count: int = 33) -> Points:
    """Return a centre line along x, bowed by `bend` in y.

    >>> line(2.0, bend=0.5, count=3)
    array([[-1. ,  0. ],
           [ 0. ,  0.5],
           [ 1. ,  0. ]])

    Args:
        length: Length along x.
        bend: Height of the bow in the middle.
        count: Number of points.

    Returns:
        Points (count, 2).
    """
    t = np.linspace(-1, 1, count)
    return np.stack([t * length / 2, bend * (1 - t * t)], axis=1)


def ribbon(centre: Points, half_width: float, end: float = 6.0) -> Points:
    """Return the outline around a centre line.

    Args:
        centre: The centre line, (N, 2).
        half_width: Half the width in the middle.
        end: Bluntness of the ends: 2 makes a lens, 12 is nearly square. The half width is half_width * sqrt(1 -
            |t|**end) for t from -1 to 1 along the line.

    Returns:
        Points (2 * N, 2).
    """
    t = np.linspace(-1, 1, len(centre))
    along = np.gradient(centre, axis=0)
    along /= np.maximum(np.sqrt((along**2).sum(axis=1, keepdims=True)), 1e-9)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * (half_width * np.sqrt(1 - np.abs(t) ** end))[:, None]
    return np.concatenate([centre + across, (centre - across)[::-1]])


def wave(length: float, height: float, turns: float, bend: float = 0.0, count: int = 90) -> Points:
    """Return a line like squeezed-out sauce, (count, 2): a sine of `turns` periods along a bowed centre line."""
    points = line(length, bend, count)
    points[:, 1] += height * np.sin(np.linspace(0, 2 * np.pi * turns, count))
    return points


def ellipse(rx: float, ry: float, start: float = 0.0, stop: float = 2 * np.pi, count: int = 48) -> Points:
    """Return an ellipse of half axes `rx` and `ry`, or its part between two angles in radians, as points (count, 2)."""
    t = np.linspace(start, stop, count)
    return np.stack([rx * np.cos(t), ry * np.sin(t)], axis=1)


def box(width: float, height: float) -> Points:
    """Return the corners (4, 2) of a rectangle around the origin."""
    w, h = width / 2, height / 2
    return np.array([[-w, -h], [w, -h], [w, h], [-w, h]])


class Canvas:
    """A square picture under one light, float32 RGB (3, size, size) in 0..255; `random` drives all that is drawn."""

    def __init__(self, size: int, random: np.random.RandomState) -> None:
        self.size = size
        self.random = random
        self.pixels: Pixels = np.zeros((3, size, size), np.float32)
        angle = random.uniform(0, 2 * np.pi)
        self.light = (float(np.cos(angle)), float(np.sin(angle)))
        self.shadow = random.uniform(0.3, 0.65)

    def noise(self, shape: tuple[int, ...], finest: int = 2) -> Pixels:
        """Return a random cut-out of smooth noise.

        Args:
            shape: Height and width.
            finest: Smallest grain in pixels: 2, 8 or 32.

        Returns:
            (height, width) float32 in -1..1.
        """
        height, width = shape
        field = _noise_field(finest)
        top = self.random.randint(0, _NOISE_SIDE - height + 1)
        left = self.random.randint(0, _NOISE_SIDE - width + 1)
        return field[top : top + height, left : left + width]

    def vary(self, colour: Colour, amount: float = 12.0) -> Colour:
        """Return the colour a little lighter or darker, and a little off in each channel."""
        shift = self.random.uniform(-amount, amount)
        red, green, blue = np.clip(np.array(colour) + shift + self.random.uniform(-amount, amount, 3) / 2, 0, 255)
        return float(red), float(green), float(blue)

    def blob(self, rx: float, ry: float, wobble: float = 0.08) -> Points:
        """Return an uneven ellipse as points (N, 2); `wobble` bounds each of the three waves along its outline."""
        points = ellipse(rx, ry)
        t = np.linspace(0, 2 * np.pi, len(points))
        swing = np.ones(len(points))
        for harmonic in (2, 3, 5):
            swing += self.random.uniform(-wobble, wobble) * np.sin(harmonic * t + self.random.uniform(0, 6.28))
        return points * swing[:, None]

    def shape(self, pose: Pose, outline: Points, colour: Colour, **look: Any) -> None:
        """Fill one outline with a colour; `look` goes to `paint`."""
        self.shapes(pose, [outline], colour, **look)

    def shapes(self, pose: Pose, outlines: Sequence[Points], colour: Colour, **look: Any) -> None:
        """Fill several outlines of one material at once; `look` goes to `paint`."""
        mask = Image.new("L", (self.size, self.size))
        draw = ImageDraw.Draw(mask)
        for outline in outlines:
            draw.polygon(pose.place(outline), fill=255)
        self.paint(mask, colour, pose, **look)

    def strokes(self, pose: Pose, lines: Sequence[Points], width: float, colour: Colour, **look: Any) -> None:
        """Draw lines with round ends, `width` in the pose's units; `look` goes to `paint`."""
        mask = Image.new("L", (self.size, self.size))
        draw = ImageDraw.Draw(mask)
        pixels = max(1.5, width * pose.scale)
        for points in lines:
            placed = pose.place(points)
            draw.line(placed, fill=255, width=round(pixels), joint="curve")
            for x, y in (placed[0], placed[-1]):
                draw.ellipse((x - pixels / 2, y - pixels / 2, x + pixels / 2, y + pixels / 2), fill=255)
        self.paint(mask, colour, pose, **look)

    def paint(
        self,
        mask: Image.Image,
        colour: Colour,
        pose: Pose,
        *,
        puff: float = 0.35,
        radius: float = 0.05,
        rim: Colour | None = None,
        patch: tuple[Colour, float] | None = None,
        mottle: float = 0.08,
        grain: int = 2,
        gloss: float = 0.0,
        lift: float = 0.0,
        thick: float = 0.0,
        alpha: float = 1.0,
    ) -> None:
        """Lay a material on the masked pixels, shaded as if it bulged towards the viewer.

        Args:
            mask: Mode L, of the canvas's size: 255 where the material lies.
            colour: Its colour.
            pose: Its pose, whose units all lengths have.
            puff: Strength of the bulge; negative for a hollow.
            radius: Distance from the edge over which it rounds off.
            rim: The colour that it takes at its edge.
            patch: A second colour, and how much of it shows (-1..1) in noise.
            mottle: Strength of the unevenness.
            grain: Smallest grain in pixels of the noise of `patch`.
            gloss: Strength of the highlight.
            lift: Height above the ground, for the shadow.
            thick: Height of the side that is seen when tilted.
            alpha: Opacity.
        """
        if thick and pose.tilt < 0.95:
            drop = max(1, round(thick * pose.scale * (1 - pose.tilt**2) ** 0.5))
            side = _smear(mask, drop)
            self.paint(side, _times(colour, 0.68), pose, puff=puff / 2, radius=radius, mottle=mottle, lift=lift)
            lift = 0.0
        if lift:
            self._cast(mask, lift * pose.scale)
        bounds = mask.getbbox()
        if bounds is None:
            return
        left, top, right, bottom = bounds
        reach = max(1.0, radius * pose.scale)
        if puff or gloss or rim is not None:
            height, lit = self._relief(mask, bounds, reach)
        else:
            height = lit = np.zeros((bottom - top, right - left), np.float32)
        tone: Pixels = 1 + np.float32(puff) * (lit - 0.35 * (1 - height))
        tone *= 1 + np.float32(mottle) * self.noise(lit.shape)
        surface = np.empty((3, *tone.shape), np.float32)
        surface[:] = planes(colour)
        if patch is not None:
            surface += (planes(patch[0]) - surface) * np.clip((self.noise(tone.shape, grain) + patch[1]) * 4, 0, 1)
        if rim is not None:
            surface += (planes(rim) - surface) * np.clip(1.7 - 1.7 * height, 0, 1)
        surface *= tone
        if gloss:
            shine = np.clip(1 - np.abs(lit - 0.38) / 0.2, 0, 1) ** 2 * gloss
            surface += (255 - surface) * shine
        cover = np.asarray(mask.crop(bounds), np.float32) * np.float32(alpha / 255)
        target = self.pixels[:, top:bottom, left:right]
        surface -= target
        surface *= cover
        target += surface

    def _relief(self, mask: Image.Image, bounds: tuple[int, int, int, int], reach: float) -> tuple[Pixels, Pixels]:
        left, top, right, bottom = bounds
        step = max(1, round(reach * 0.7))
        soft = mask.crop((left - step, top - step, right + step, bottom + step)).filter(ImageFilter.GaussianBlur(reach))
        field: Pixels = np.asarray(soft, np.float32) / np.float32(255)
        dx, dy = round(self.light[0] * step), round(self.light[1] * step)
        high, wide = bottom - top, right - left
        near = field[step - dy : step - dy + high, step - dx : step - dx + wide]
        far = field[step + dy : step + dy + high, step + dx : step + dx + wide]
        height = np.clip(field[step : step + high, step : step + wide] * 2 - 1, 0, 1)
        return height.astype(np.float32), near - far

    def _cast(self, mask: Image.Image, lift: float) -> None:
        bounds = mask.getbbox()
        if bounds is None:
            return
        blur = max(1.0, lift * 0.3)
        dx, dy = -round(self.light[0] * lift), -round(self.light[1] * lift)
        pad = round(blur * 6) + 2
        left, top = max(0, bounds[0] + dx - pad), max(0, bounds[1] + dy - pad)
        right, bottom = min(self.size, bounds[2] + dx + pad), min(self.size, bounds[3] + dy + pad)
        if right <= left or bottom <= top:
            return
        fallen = mask.crop((left - dx, top - dy, right - dx, bottom - dy))
        soft = fallen.reduce(2).filter(ImageFilter.GaussianBlur(blur)).resize(fallen.size, Image.Resampling.BILINEAR)
        dark = np.asarray(soft, np.float32) * np.float32(self.shadow / 255)
        self.pixels[:, top:bottom, left:right] *= 1 - dark


def _moved(mask: Image.Image, dx: int, dy: int) -> Image.Image:
    return mask.crop((-dx, -dy, mask.width - dx, mask.height - dy))


def _smear(mask: Image.Image, drop: int) -> Image.Image:
    out = mask
    step = 1
    while step <= drop:
        out = ImageChops.lighter(out, _moved(out, 0, min(step, drop)))
        step *= 2
    return out


def _times(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor
