"""Hot dogs, and the parts that other foods borrow: sausages, sauce lines, sprinkled bits."""

import numpy as np

from common.data.demo.canvas import Canvas, Colour, Points, Pose, box, line, ribbon, wave
from common.data.demo.setting import GREENS, pick

BUNS: tuple[Colour, ...] = ((216, 152, 84), (226, 176, 112), (186, 112, 56), (204, 136, 66), (232, 196, 140))
CRUMB: Colour = (244, 226, 186)
SAUSAGES: tuple[Colour, ...] = (
    (172, 72, 46),
    (150, 62, 38),
    (200, 104, 74),
    (126, 60, 38),
    (190, 84, 60),
    (214, 128, 96),
)
MUSTARD: Colour = (232, 182, 36)
KETCHUP: Colour = (188, 28, 20)
SAUCES: tuple[Colour, ...] = (MUSTARD, MUSTARD, KETCHUP, KETCHUP, (240, 230, 205))


def sausage(canvas: Canvas, pose: Pose, length: float = 1.1, half_width: float = 0.09, bend: float = 0.0) -> None:
    """Draw one sausage, glossy, sometimes with char marks."""
    random = canvas.random
    colour = pick(canvas, SAUSAGES)
    centre = line(length, bend)
    canvas.shape(
        pose, ribbon(centre, half_width, 10), colour,
        puff=0.75, radius=0.055, gloss=0.55, lift=0.06, mottle=0.12, patch=(canvas.vary(colour, 25), -0.2), grain=8,
    )  # fmt: skip
    dark: Colour = (66, 32, 22)
    if random.rand() < 0.45:
        slant = random.uniform(-0.4, 0.4)
        spots = np.linspace(-0.42, 0.42, random.randint(4, 8)) * length
        arc = bend * (1 - (2 * spots / length) ** 2)
        marks = [
            line(half_width * 1.3)[:, ::-1] + [x, y] + line(slant * half_width)[:, :1] * [1, 0]
            for x, y in zip(spots, arc, strict=True)
        ]
        canvas.strokes(pose, marks, 0.026, dark, puff=-0.2, radius=0.02, alpha=random.uniform(0.45, 0.85))


def squiggle(canvas: Canvas, pose: Pose, colour: Colour, length: float, height: float, bend: float = 0.0) -> None:
    """Draw sauce squeezed out in a wavy or straight line."""
    random = canvas.random
    turns = random.choice([0.5, 3, 4, 5.5, 7])
    path = wave(length, height if turns > 1 else height * 0.3, turns, bend)
    path[:, 1] += random.uniform(-0.01, 0.01)
    canvas.strokes(
        pose, [path], random.uniform(0.028, 0.05), canvas.vary(colour), puff=0.6, radius=0.02, gloss=0.5, lift=0.02
    )


def sprinkle(
    canvas: Canvas, pose: Pose, colour: Colour, reach: tuple[float, float], count: int, bit: float = 0.024
) -> None:
    """Draw small bits strewn over an area of half axes `reach`."""
    random = canvas.random
    spots = random.uniform(-1, 1, (count, 2)) * reach
    bits: list[Points] = []
    for spot in spots:
        size = bit * random.uniform(0.6, 1.3)
        bits.append(canvas.blob(size, size * random.uniform(0.6, 1), 0.15) + spot)
    canvas.shapes(pose, bits, canvas.vary(colour), puff=0.5, radius=0.012, gloss=0.2, lift=0.012)


def bun_half(
    canvas: Canvas, pose: Pose, colour: Colour, half_width: float, bend: float = 0.0, length: float = 1.0
) -> None:
    """Draw one long, soft piece of bread, browner on top than at its edge."""
    pale = (min(255, colour[0] + 14), min(255, colour[1] + 22), min(255, colour[2] + 26))
    canvas.shape(
        pose, ribbon(line(length, bend), half_width, 7), colour,
        puff=0.55, radius=half_width * 0.55, rim=pale, lift=0.05, thick=0.06, mottle=0.06, gloss=0.08,
    )  # fmt: skip
    if canvas.random.rand() < 0.2:
        sprinkle(canvas, pose, (246, 232, 196), (length * 0.4, half_width * 0.7), 16, 0.012)


def _topping(canvas: Canvas, pose: Pose, bend: float) -> None:
    random = canvas.random
    kind = random.randint(9)
    if kind >= 8:
        return
    if kind in (2, 3, 6):
        sprinkle(canvas, pose, pick(canvas, GREENS), (0.44, 0.07), random.randint(14, 34))
    if kind in (3, 4, 6):
        sprinkle(canvas, pose, (240, 232, 224), (0.42, 0.06), random.randint(10, 26), 0.022)
    if kind == 5:
        threads = [
            wave(random.uniform(0.08, 0.2), 0.02, 1) + random.uniform(-1, 1, 2) * [0.38, 0.07] for _ in range(26)
        ]
        canvas.strokes(pose, threads, 0.016, (238, 200, 96), puff=0.5, radius=0.01, lift=0.01)
    if kind not in (3, 7):
        squiggle(canvas, pose, SAUCES[random.randint(5)], random.uniform(0.8, 1.0), random.uniform(0.03, 0.07), bend)
    if kind in (1, 7):
        for side in (-0.03, 0.03):
            colour = MUSTARD if side < 0 else KETCHUP
            squiggle(canvas, pose.part(0, side), colour, random.uniform(0.8, 1.0), 0.025, bend)


def hot_dog(canvas: Canvas, pose: Pose) -> None:
    """Draw a sausage in a split bun, seen from above or from the side of the split, at times with paper at one end."""
    random = canvas.random
    bend = random.uniform(-0.07, 0.07)
    colour = pick(canvas, BUNS)
    wide = random.uniform(0.2, 0.26)
    opened = random.rand() < 0.55
    length = random.uniform(0.95, 1.22)
    thickness = random.uniform(0.075, 0.1)
    lean = 0.0 if opened else -wide * 0.25
    bun_half(canvas, pose.part(0, lean), colour, wide, bend)
    canvas.shape(
        pose.part(0, lean),
        ribbon(line(0.97, bend), wide * 0.72, 8),
        canvas.vary(CRUMB, 20),
        puff=-0.25,
        radius=0.06,
        mottle=0.1,
    )
    if random.rand() < 0.35:
        frill = [
            canvas.blob(0.11, 0.07, 0.25) + [x, wide * random.uniform(-0.6, 0.2)] for x in np.linspace(-0.42, 0.42, 8)
        ]
        canvas.shapes(pose, frill, pick(canvas, GREENS), puff=0.5, radius=0.03, patch=((180, 205, 110), -0.1), grain=8)
    sausage(canvas, pose, length, thickness, bend)
    if opened:
        for side in (-1, 1):
            lip = pose.part(0, side * (wide * 0.84))
            bun_half(canvas, lip, colour, wide * 0.42, bend)
    else:
        bun_half(canvas, pose.part(0, wide * 0.8), colour, wide * 0.6, bend)
    _topping(canvas, pose.part(0, 0 if opened else -0.02), bend)
    if random.rand() < 0.15:
        wrap = pose.part(random.choice([-0.32, 0.32]), 0.02)
        canvas.shape(wrap, box(0.48, wide * 2.5), (236, 232, 222), puff=0.5, radius=0.09, lift=0.04, alpha=0.97)
        canvas.shapes(
            wrap,
            [box(0.03, wide * 2.5) + [x, 0] for x in (-0.18, 0, 0.18)],
            pick(canvas, ((190, 40, 35), (50, 90, 150))),
            puff=0,
        )
