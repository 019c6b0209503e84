"""Other food that shares a hot dog's outline or colours, so that these alone do not tell the classes apart."""

import numpy as np

from common.data.demo.canvas import Canvas, Colour, Pose, box, ellipse, line, ribbon, wave
from common.data.demo.hotdogs import BUNS, CRUMB, SAUCES, bun_half, sausage, sprinkle, squiggle
from common.data.demo.setting import GREENS, pick

CHEESE: Colour = (242, 196, 84)
TOMATO: Colour = (200, 48, 34)


def sausages_without_bun(canvas: Canvas, pose: Pose) -> None:
    """Draw two to four sausages side by side, at times with a line of sauce or something green."""
    random = canvas.random
    for row in range(random.randint(2, 5)):
        place = pose.part(random.uniform(-0.06, 0.06), (row - 1) * 0.23, random.uniform(-0.12, 0.12))
        sausage(canvas, place, random.uniform(0.8, 1.0), random.uniform(0.075, 0.1), random.uniform(-0.1, 0.1))
    if random.rand() < 0.6:
        squiggle(canvas, pose.part(0, 0.05, random.uniform(-0.4, 0.4)), SAUCES[random.randint(5)], 0.9, 0.06)
    if random.rand() < 0.4:
        sprinkle(canvas, pose, pick(canvas, GREENS), (0.4, 0.3), 24)


def bun_without_sausage(canvas: Canvas, pose: Pose) -> None:
    """Draw a long bun, closed, or opened on nothing but its crumb and perhaps a line of sauce."""
    colour, wide = pick(canvas, BUNS), canvas.random.uniform(0.2, 0.26)
    if canvas.random.rand() < 0.5:
        bun_half(canvas, pose, colour, wide)
        slits = [line(0.2) @ np.array([[0.7, 0.7], [-0.7, 0.7]]) + [x, 0] for x in (-0.3, -0.1, 0.1, 0.3)]
        canvas.strokes(pose, slits, 0.02, (236, 204, 150), puff=0)
        return
    bun_half(canvas, pose, colour, wide)
    canvas.shape(pose, ribbon(line(0.97), wide * 0.75, 8), CRUMB, puff=-0.2, radius=0.06, mottle=0.12)
    bun_half(canvas, pose.part(0, wide * 0.9), colour, wide * 0.4)
    if canvas.random.rand() < 0.5:
        squiggle(canvas, pose.part(0, -0.03), SAUCES[canvas.random.randint(5)], 0.85, 0.05)


def baguette(canvas: Canvas, pose: Pose) -> None:
    """Draw a filled baguette: lettuce, tomato slices, and cheese or ham between two long halves."""
    random = canvas.random
    colour = pick(canvas, BUNS)
    bun_half(canvas, pose.part(0, 0.12), colour, 0.17, length=1.2)
    frill = [
        canvas.blob(0.11, 0.08, 0.25) + [x, 0.02 + random.uniform(-0.04, 0.06)] for x in np.linspace(-0.5, 0.5, 10)
    ]
    canvas.shapes(pose, frill, pick(canvas, GREENS), puff=0.5, radius=0.03, lift=0.02)
    flaps = [np.array([[-0.1, 0.0], [0.1, 0.0], [0, 0.12]]) + [x, 0] for x in (-0.34, -0.1, 0.14, 0.38)]
    canvas.shapes(pose, flaps, pick(canvas, (CHEESE, (222, 148, 136))), puff=0.3, lift=0.02)
    rounds = [ellipse(0.11, 0.06) + [x, -0.01] for x in (-0.42, -0.2, 0.03, 0.26, 0.44)]
    canvas.shapes(pose, rounds, canvas.vary(TOMATO), puff=0.4, radius=0.03, gloss=0.35, lift=0.02)
    bun_half(canvas, pose.part(0, -0.13), colour, 0.19, length=1.2)
    if random.rand() < 0.4:
        squiggle(canvas, pose.part(0, 0.0), SAUCES[random.randint(5)], 0.9, 0.04)


def eclair(canvas: Canvas, pose: Pose) -> None:
    """Draw a long iced pastry, at times with a line of icing that might be mustard."""
    bun_half(canvas, pose, pick(canvas, BUNS), 0.19, length=0.95)
    icing = pick(canvas, ((92, 48, 30), (120, 64, 40), (236, 208, 170), (206, 120, 130)))
    canvas.shape(pose, ribbon(line(0.86), 0.13, 7), icing, puff=0.5, radius=0.06, gloss=0.55, lift=0.02)
    if canvas.random.rand() < 0.6:
        squiggle(canvas, pose, pick(canvas, ((244, 232, 210), (232, 182, 60), (120, 60, 40))), 0.75, 0.07)


def corn(canvas: Canvas, pose: Pose) -> None:
    """Draw a cob of corn, buttered and charred in places, at times with its husk."""
    husk = [ribbon(line(0.6, 0.1), 0.09, 2) + [-0.5, 0.1], ribbon(line(0.6, -0.1), 0.09, 2) + [-0.5, -0.1]]
    if canvas.random.rand() < 0.6:
        canvas.shapes(pose, husk, pick(canvas, GREENS), puff=0.5, radius=0.04, lift=0.04)
    gold = canvas.vary((240, 196, 62))
    canvas.shape(pose, ribbon(line(1.0), 0.15, 5), canvas.vary((206, 150, 40)), puff=0.6, radius=0.08, lift=0.07)
    kernels = [
        ellipse(0.031, 0.028, count=10) + [x, y]
        for y in np.arange(-0.11, 0.12, 0.055)
        for x in np.arange(-0.44, 0.45, 0.062)
    ]
    canvas.shapes(pose, kernels, gold, puff=0.7, radius=0.016, gloss=0.45, patch=((150, 90, 40), -0.35), grain=8)


def banana(canvas: Canvas, pose: Pose) -> None:
    """Draw one or two bananas."""
    for turn in np.arange(canvas.random.randint(1, 3)) * 0.35:
        place = pose.part(0, turn * 0.5, turn)
        yellow = canvas.vary((238, 206, 78))
        canvas.shape(
            place,
            ribbon(line(1.05, 0.24), 0.12, 3.5),
            yellow,
            puff=0.5,
            radius=0.07,
            lift=0.07,
            patch=((120, 84, 40), -0.6),
            grain=8,
        )
        canvas.strokes(place, [line(0.9, 0.22) - [0, 0.015]], 0.012, (206, 166, 60), puff=0)
        canvas.shapes(place, [box(0.08, 0.05) + [-0.53, 0.0], box(0.05, 0.05) + [0.52, 0.0]], (98, 74, 40), puff=0.4)


def carrots(canvas: Canvas, pose: Pose) -> None:
    """Draw a bundle of carrots with green tops."""
    for row in range(canvas.random.randint(2, 5)):
        place = pose.part(0, (row - 1.2) * 0.19, canvas.random.uniform(-0.15, 0.15))
        tops = [wave(0.34, 0.03, 1.5) @ np.array([[1, s], [-s, 1]]) - [0.6, s * 0.2] for s in (-0.35, 0.0, 0.35)]
        canvas.strokes(place, tops, 0.03, pick(canvas, GREENS), puff=0.5, radius=0.02, lift=0.03)
        body = np.array([[-0.45, -0.085], [-0.48, 0.0], [-0.45, 0.085], [0.2, 0.045], [0.58, 0.0], [0.2, -0.045]])
        canvas.shape(place, body, canvas.vary((226, 116, 42)), puff=0.6, radius=0.05, lift=0.05, gloss=0.15)
        rings = [line(0.06)[:, ::-1] + [x, 0.02] for x in canvas.random.uniform(-0.4, 0.3, 6)]
        canvas.strokes(place, rings, 0.01, (180, 84, 28), puff=0)


def churros(canvas: Canvas, pose: Pose) -> None:
    """Draw ridged sticks of fried dough, with sugar."""
    for row in range(canvas.random.randint(2, 5)):
        place = pose.part(0, (row - 1.2) * 0.17, canvas.random.uniform(-0.2, 0.2))
        canvas.shape(
            place,
            ribbon(line(1.0, canvas.random.uniform(-0.06, 0.06)), 0.075, 12),
            canvas.vary((176, 108, 54)),
            puff=0.65,
            lift=0.05,
        )
        canvas.strokes(place, [line(0.94) + [0, y] for y in (-0.035, 0.0, 0.035)], 0.012, (226, 170, 104), puff=0.3)
    sprinkle(canvas, pose, (248, 244, 236), (0.45, 0.3), 30, 0.01)


def taco(canvas: Canvas, pose: Pose) -> None:
    """Draw a folded shell with meat, lettuce, tomato and cheese along its edge."""
    random = canvas.random
    shell = canvas.vary((228, 182, 96))
    half = np.concatenate([ellipse(0.55, 0.46, np.pi, 2 * np.pi), [[0.55, 0.03], [-0.55, 0.03]]])
    canvas.shape(pose.part(0, 0.1), half, canvas.vary(shell), puff=0.3, radius=0.06, lift=0.07)
    for colour, count, bit in (
        ((118, 66, 40), 26, 0.045),
        (pick(canvas, GREENS), 22, 0.05),
        (TOMATO, 12, 0.035),
        (CHEESE, 16, 0.03),
    ):
        angle = random.uniform(np.pi * 1.05, np.pi * 1.95, count)
        spots = np.stack([0.53 * np.cos(angle), 0.12 + 0.46 * np.sin(angle)], axis=1) * random.uniform(
            0.86, 1.04, (count, 1)
        )
        canvas.shapes(
            pose,
            [canvas.blob(bit, bit * 0.7, 0.2) + s for s in spots],
            canvas.vary(colour),
            puff=0.5,
            radius=0.02,
            lift=0.02,
        )
    canvas.shape(
        pose.part(0, 0.2), half, shell, puff=0.45, radius=0.09, lift=0.03, patch=((190, 128, 60), -0.25), grain=8
    )
