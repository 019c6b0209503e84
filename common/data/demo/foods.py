"""The rest of the menu, and the lists that a scene draws from."""

from collections.abc import Callable

import numpy as np

from common.data.demo.canvas import Canvas, Colour, Pose, box, ellipse, line, ribbon, wave
from common.data.demo.hotdogs import BUNS, CRUMB, KETCHUP, MUSTARD, SAUCES, sprinkle, squiggle
from common.data.demo.lookalikes import (
    CHEESE,
    TOMATO,
    baguette,
    banana,
    bun_without_sausage,
    carrots,
    churros,
    corn,
    eclair,
    sausages_without_bun,
    taco,
)
from common.data.demo.setting import GREENS, pick

Food = Callable[[Canvas, Pose], None]
FRIED: tuple[Colour, ...] = ((224, 172, 78), (206, 148, 64), (232, 190, 104))


def burger(canvas: Canvas, pose: Pose) -> None:
    """Draw a burger, stacked and seen from the side, or from above."""
    random = canvas.random
    bun = pick(canvas, BUNS)
    if random.rand() < 0.5:
        canvas.shape(pose, canvas.blob(0.5, 0.5, 0.12), pick(canvas, GREENS), puff=0.5, radius=0.04, lift=0.06)
        canvas.shape(pose, box(0.72, 0.72), CHEESE, puff=0.3, lift=0.03)
        canvas.shape(pose.part(0.03, 0.02), ellipse(0.44, 0.44), (104, 58, 38), puff=0.4, lift=0.04)
        canvas.shape(pose.part(-0.02, -0.03), ellipse(0.42, 0.42), bun, puff=0.6, radius=0.16, lift=0.08, gloss=0.15)
        sprinkle(canvas, pose, (246, 232, 196), (0.24, 0.24), 26, 0.016)
        return
    up = Pose(pose.x, pose.y, pose.scale, random.uniform(-0.25, 0.25))
    canvas.shape(up.part(0, 0.3), ribbon(line(0.92), 0.11, 6), bun, puff=0.5, radius=0.06, lift=0.08)
    layers = [
        ((104, 58, 38), 0.09, 0.18),
        (CHEESE, 0.035, 0.09),
        (TOMATO, 0.045, 0.05),
        (pick(canvas, GREENS), 0.05, 0.0),
    ]
    if random.rand() < 0.4:
        layers.insert(2, ((96, 54, 36), 0.08, 0.1))
    for colour, half_width, height in layers:
        centre = wave(random.uniform(0.9, 1.02), 0.012, random.randint(3, 7), count=40)
        canvas.shape(
            up.part(0, height),
            ribbon(centre, half_width, 10),
            canvas.vary(colour),
            puff=0.5,
            radius=0.04,
            lift=0.02,
            mottle=0.15,
        )
    dome = np.concatenate([ellipse(0.47, 0.34, np.pi, 2 * np.pi), [[0.44, 0.04], [-0.44, 0.04]]])
    canvas.shape(up.part(0, -0.03), dome, bun, puff=0.6, radius=0.13, gloss=0.2, lift=0.03)
    sprinkle(canvas, up.part(0, -0.22), (246, 232, 196), (0.26, 0.08), 20, 0.015)


def whole_pizza(canvas: Canvas, pose: Pose) -> None:
    """Draw a round pizza, cut into slices, with pepperoni, olives and basil."""
    random = canvas.random
    canvas.shape(
        pose,
        canvas.blob(0.62, 0.62, 0.015),
        pick(canvas, BUNS),
        puff=0.5,
        radius=0.05,
        lift=0.06,
        patch=((130, 78, 40), -0.45),
        grain=8,
    )
    canvas.shape(pose, canvas.blob(0.54, 0.54, 0.02), canvas.vary(TOMATO), puff=0.2)
    canvas.shape(
        pose,
        canvas.blob(0.51, 0.51, 0.05),
        canvas.vary(CHEESE),
        puff=0.3,
        patch=(canvas.vary((214, 92, 44)), -0.05),
        grain=8,
        gloss=0.2,
    )
    ring = random.uniform(0, 6.28) + np.arange(9) * 0.7
    spots = np.stack([np.cos(ring), np.sin(ring)], axis=1) * random.uniform(0.12, 0.44, (9, 1))
    canvas.shapes(
        pose,
        [ellipse(0.085, 0.085, count=20) + s for s in spots],
        canvas.vary((168, 48, 36)),
        puff=0.4,
        radius=0.02,
        gloss=0.3,
        lift=0.012,
    )
    sprinkle(canvas, pose, pick(canvas, ((42, 40, 44), *GREENS)), (0.34, 0.34), 14, 0.03)
    cuts = [line(1.24) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) for a in np.arange(4) * np.pi / 4]
    canvas.strokes(pose, cuts, 0.012, (150, 90, 50), puff=0)


def pizza_slice(canvas: Canvas, pose: Pose) -> None:
    """Draw a slice of pizza."""
    wedge = np.array([[-0.5, -0.3], [0.55, 0.0], [-0.5, 0.3]])
    canvas.shape(
        pose,
        wedge,
        canvas.vary(CHEESE),
        puff=0.35,
        radius=0.04,
        lift=0.06,
        thick=0.06,
        patch=(canvas.vary((214, 92, 44)), 0.0),
        grain=8,
        gloss=0.25,
    )
    rounds = [ellipse(0.085, 0.085, count=20) + s for s in ([-0.32, -0.12], [-0.3, 0.14], [-0.04, 0.02], [0.2, 0.0])]
    canvas.shapes(pose, rounds, canvas.vary((168, 48, 36)), puff=0.4, radius=0.02, gloss=0.35, lift=0.012)
    sprinkle(canvas, pose.part(-0.2, 0), pick(canvas, GREENS), (0.22, 0.14), 8, 0.03)
    canvas.shape(
        pose.part(-0.53, 0, np.pi / 2),
        ribbon(line(0.68), 0.085, 8),
        pick(canvas, BUNS),
        puff=0.6,
        radius=0.05,
        lift=0.03,
    )


def open_sandwich(canvas: Canvas, pose: Pose) -> None:
    """Draw a slice of bread with salami, cheese or tomato, and at times a line of sauce."""
    random = canvas.random
    slice_ = np.concatenate([ellipse(0.42, 0.2, np.pi, 2 * np.pi) - [0, 0.18], [[0.38, 0.38], [-0.38, 0.38]]])
    canvas.shape(pose, slice_ * 1.08, pick(canvas, BUNS), puff=0.5, radius=0.05, lift=0.07, thick=0.08)
    canvas.shape(pose, slice_, canvas.vary(CRUMB, 20), puff=0.2, radius=0.05, mottle=0.14)
    if random.rand() < 0.4:
        frill = [canvas.blob(0.13, 0.1, 0.25) + spot for spot in random.uniform(-0.28, 0.28, (5, 2))]
        canvas.shapes(pose, frill, pick(canvas, GREENS), puff=0.5, radius=0.03, lift=0.02)
    topping = pick(canvas, ((150, 50, 40), (120, 40, 34), (196, 96, 74), TOMATO, CHEESE))
    for spot in random.uniform(-0.22, 0.22, (random.randint(0, 5), 2)):
        canvas.shape(
            pose.part(*spot.tolist()), ellipse(0.16, 0.15), canvas.vary(topping), puff=0.4, lift=0.02, gloss=0.3
        )
    if random.rand() < 0.5:
        squiggle(canvas, pose.part(0, 0.05, random.uniform(-0.5, 0.5)), SAUCES[random.randint(5)], 0.6, 0.06)


def fries(canvas: Canvas, pose: Pose) -> None:
    """Draw a heap of fries, with ketchup or another sauce over them now and then."""
    random = canvas.random
    for _ in range(3):
        sticks = []
        for spot in random.normal(0, 0.19, (9, 2)):
            turn = random.uniform(0, np.pi)
            spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            sticks.append(box(random.uniform(0.3, 0.55), 0.07) @ spin + spot)
        canvas.shapes(pose, sticks, pick(canvas, FRIED), puff=0.6, radius=0.03, lift=0.03)
    if random.rand() < 0.4:
        squiggle(canvas, pose, SAUCES[random.randint(5)], 0.6, 0.1)


def salad(canvas: Canvas, pose: Pose) -> None:
    """Draw a bowl of salad."""
    random = canvas.random
    canvas.shape(
        pose,
        ellipse(0.58, 0.58),
        pick(canvas, ((235, 232, 225), (150, 100, 60), (90, 110, 130))),
        puff=0.3,
        lift=0.12,
        thick=0.2,
        gloss=0.25,
    )
    canvas.shape(pose, ellipse(0.52, 0.52), (66, 88, 44), puff=-0.3, radius=0.08)
    for _ in range(5):
        leaves = [canvas.blob(0.16, 0.1, 0.25) + s for s in random.uniform(-0.33, 0.33, (5, 2))]
        canvas.shapes(pose, leaves, pick(canvas, (*GREENS, (150, 185, 80))), puff=0.5, radius=0.04, lift=0.02)
    rounds = [ellipse(0.09, 0.09, count=20) + s for s in random.uniform(-0.32, 0.32, (6, 2))]
    canvas.shapes(pose, rounds, canvas.vary(TOMATO), puff=0.5, gloss=0.4, lift=0.02)
    sprinkle(canvas, pose, pick(canvas, ((240, 234, 220), (226, 190, 70), (206, 150, 80))), (0.33, 0.33), 12, 0.045)


def donut(canvas: Canvas, pose: Pose) -> None:
    """Draw a glazed ring with sprinkles."""
    hole = ellipse(0.15, 0.15)[::-1]
    canvas.shape(
        pose, np.concatenate([ellipse(0.46, 0.46), hole]), pick(canvas, BUNS), puff=0.5, radius=0.07, lift=0.09
    )
    glaze = pick(canvas, ((226, 130, 150), (96, 52, 34), (240, 226, 196), (220, 160, 70), (150, 40, 40)))
    canvas.shape(
        pose,
        np.concatenate([canvas.blob(0.41, 0.41, 0.03), ellipse(0.18, 0.18)[::-1]]),
        glaze,
        puff=0.55,
        radius=0.06,
        gloss=0.5,
        lift=0.015,
    )
    for colour in ((236, 196, 60), (90, 150, 190), (240, 236, 230)):
        angle = canvas.random.uniform(0, 6.28, 9)
        spots = np.stack([np.cos(angle), np.sin(angle)], axis=1) * canvas.random.uniform(0.23, 0.37, (9, 1))
        canvas.strokes(
            pose,
            [
                line(0.05) @ np.array([[np.cos(a * 5), np.sin(a * 5)], [-np.sin(a * 5), np.cos(a * 5)]]) + s
                for a, s in zip(angle, spots, strict=True)
            ],
            0.02,
            colour,
            puff=0.4,
            lift=0.008,
        )


def croissant(canvas: Canvas, pose: Pose) -> None:
    """Draw a croissant, built of overlapping rolls."""
    brown = pick(canvas, BUNS[:4])
    for offset in sorted(np.linspace(-0.44, 0.44, 7), key=lambda u: -abs(u)):
        roll = pose.part(offset, 0.9 * offset**2, np.pi / 2 + offset * 1.4)
        half = 0.25 * (1 - (offset / 0.62) ** 2) + 0.02
        canvas.shape(
            roll,
            ribbon(line(half * 2), 0.105, 3),
            canvas.vary(brown, 8),
            puff=0.6,
            radius=0.06,
            lift=0.05,
            gloss=0.2,
            rim=(236, 190, 120),
        )


def sushi(canvas: Canvas, pose: Pose) -> None:
    """Draw three rolls in a row above two nigiri."""
    for column in range(3):
        place = pose.part((column - 1) * 0.36, -0.2)
        canvas.shape(place, ellipse(0.16, 0.16), (34, 40, 38), puff=0.4, lift=0.06, thick=0.12)
        canvas.shape(place, ellipse(0.135, 0.135), (240, 238, 228), puff=0.2, mottle=0.2)
        canvas.shape(
            place, canvas.blob(0.06, 0.06), pick(canvas, ((230, 120, 80), (110, 160, 60), (236, 200, 80))), puff=0.3
        )
    for column in range(2):
        place = pose.part((column - 0.5) * 0.5, 0.2, 1.3)
        canvas.shape(place, ribbon(line(0.46), 0.13, 5), (240, 238, 228), puff=0.5, lift=0.05, mottle=0.25)
        fish = pick(canvas, ((234, 126, 84), (200, 60, 58), (236, 180, 120)))
        canvas.shape(place, ribbon(line(0.52), 0.11, 6), fish, puff=0.5, gloss=0.35, lift=0.02)
        canvas.strokes(
            place, [line(0.14)[:, ::-1] + [x, 0] for x in (-0.15, -0.05, 0.05, 0.15)], 0.012, (246, 214, 190), puff=0
        )


def ice_cream(canvas: Canvas, pose: Pose) -> None:
    """Draw a cone with one to three scoops."""
    canvas.shape(
        pose.part(0.25, 0),
        np.array([[-0.2, -0.2], [0.5, 0.0], [-0.2, 0.2]]),
        canvas.vary((214, 158, 88)),
        puff=0.5,
        radius=0.08,
        lift=0.07,
    )
    lattice = [line(0.5) @ np.array([[0.8, s], [-s, 0.8]]) + [0.25, 0] for s in (-0.2, 0.2)]
    canvas.strokes(pose, lattice, 0.014, (160, 104, 50), puff=0)
    for u, v in ((0.0, -0.11), (0.0, 0.11), (-0.2, 0.0))[: canvas.random.randint(1, 4)]:
        flavour = pick(canvas, ((244, 232, 200), (110, 64, 44), (228, 140, 150), (170, 205, 150), (196, 50, 60)))
        canvas.shape(
            pose.part(u, v),
            canvas.blob(0.22, 0.22, 0.05),
            flavour,
            puff=0.55,
            radius=0.09,
            lift=0.04,
            mottle=0.15,
            gloss=0.15,
        )


def cake(canvas: Canvas, pose: Pose) -> None:
    """Draw a slice of layered cake with a berry."""
    up = Pose(pose.x, pose.y, pose.scale, canvas.random.uniform(-0.3, 0.3))
    sponge = pick(canvas, ((226, 184, 116), (110, 62, 42), (170, 50, 46)))
    cream = pick(canvas, ((246, 236, 218), (240, 196, 200), (96, 54, 38)))
    for row in range(3):
        canvas.shape(
            up.part(0, 0.28 - row * 0.2), box(0.95, 0.17), canvas.vary(sponge, 6), puff=0.25, lift=0.05, mottle=0.25
        )
        canvas.shape(up.part(0, 0.18 - row * 0.2), box(0.96, 0.06), cream, puff=0.5, radius=0.03)
    canvas.shape(
        up.part(0.03, -0.32),
        np.array([[-0.5, 0.08], [0.45, 0.08], [0.62, -0.08], [-0.3, -0.08]]),
        cream,
        puff=0.3,
        gloss=0.2,
    )
    canvas.shape(up.part(0.05, -0.4), canvas.blob(0.1, 0.1), canvas.vary((190, 30, 40)), puff=0.6, gloss=0.5, lift=0.03)


def breakfast(canvas: Canvas, pose: Pose) -> None:
    """Draw fried eggs with strips of bacon."""
    for row in range(canvas.random.randint(1, 3)):
        egg = pose.part(-0.2 + row * 0.4, -0.16 + row * 0.06)
        canvas.shape(egg, canvas.blob(0.25, 0.23, 0.1), (246, 243, 234), puff=0.4, lift=0.03, rim=(222, 190, 130))
        canvas.shape(egg, ellipse(0.095, 0.095), canvas.vary((240, 172, 40)), puff=0.6, radius=0.05, gloss=0.5)
    for row in range(canvas.random.randint(1, 4)):
        strip = pose.part(0, 0.14 + row * 0.13, canvas.random.uniform(-0.1, 0.1))
        centre = wave(0.85, 0.03, 2.5, count=50)
        canvas.shape(strip, ribbon(centre, 0.06, 14), canvas.vary((156, 58, 46)), puff=0.5, lift=0.03, gloss=0.25)
        canvas.strokes(strip, [centre], 0.03, (232, 182, 150), puff=0.2)


def spaghetti(canvas: Canvas, pose: Pose) -> None:
    """Draw a nest of spaghetti with tomato sauce and meat balls."""
    random = canvas.random
    canvas.shape(pose, canvas.blob(0.5, 0.5), (206, 164, 92), puff=0.4, radius=0.15, lift=0.05)
    for _ in range(3):
        loops = [
            ellipse(r, r * random.uniform(0.7, 1), a, a + 4) + random.normal(0, 0.06, 2)
            for r, a in zip(random.uniform(0.14, 0.46, 9), random.uniform(0, 6, 9), strict=True)
        ]
        canvas.strokes(pose, loops, 0.032, canvas.vary((236, 204, 132)), puff=0.6, radius=0.02, lift=0.015)
    canvas.shape(
        pose, canvas.blob(0.26, 0.24, 0.18), canvas.vary((186, 52, 30)), puff=0.5, mottle=0.3, gloss=0.3, lift=0.02
    )
    balls = [ellipse(0.085, 0.085) + s for s in random.uniform(-0.2, 0.2, (random.randint(0, 5), 2))]
    canvas.shapes(pose, balls, (112, 62, 40), puff=0.6, lift=0.02, gloss=0.2)
    sprinkle(canvas, pose, pick(canvas, GREENS), (0.2, 0.2), 8, 0.03)


def sauced_plate(canvas: Canvas, pose: Pose) -> None:
    """Draw fried nuggets under zigzags of ketchup and mustard."""
    for spot in canvas.random.uniform(-0.34, 0.34, (6, 2)):
        canvas.shape(
            pose.part(*spot),
            canvas.blob(0.18, 0.13, 0.12),
            pick(canvas, FRIED),
            puff=0.5,
            radius=0.06,
            lift=0.05,
            patch=((176, 112, 48), -0.1),
            grain=8,
        )
    for colour in (KETCHUP, MUSTARD):
        squiggle(
            canvas, pose.part(0, canvas.random.uniform(-0.1, 0.1), canvas.random.uniform(-0.5, 0.5)), colour, 0.9, 0.08
        )


LOOKALIKES: tuple[Food, ...] = (
    sausages_without_bun, bun_without_sausage, baguette, eclair, corn, banana, carrots, churros, taco,
)  # fmt: skip

# Those of bread and red sauce come more than once: else much tan and red would give the hot dog away.
OTHERS: tuple[Food, ...] = (
    burger, burger, open_sandwich, open_sandwich, open_sandwich, croissant, whole_pizza, pizza_slice, donut,
    sauced_plate, spaghetti, fries, salad, sushi, ice_cream, cake, breakfast,
)  # fmt: skip

SIDES: tuple[Food, ...] = (fries, salad, sauced_plate, corn, donut, pizza_slice, carrots, open_sandwich)
