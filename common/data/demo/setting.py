"""The surroundings of the food, the same for both classes: table tops, plates, papers, and things that lie about."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from common.data.demo.canvas import Canvas, Colour, Pixels, Pose, box, ellipse, line, planes, wave

CLOTHS: tuple[Colour, ...] = ((190, 45, 45), (60, 95, 150), (70, 125, 85), (205, 160, 60), (120, 80, 120), (90, 90, 95))
GREENS: tuple[Colour, ...] = ((82, 135, 52), (110, 160, 60), (58, 110, 48))


def pick(canvas: Canvas, colours: tuple[Colour, ...]) -> Colour:
    """Return one of the colours, varied a little."""
    return canvas.vary(colours[canvas.random.randint(len(colours))])


def _grid(canvas: Canvas, tilt: float) -> tuple[Pixels, Pixels]:
    y, x = np.mgrid[0 : canvas.size, 0 : canvas.size].astype(np.float32) / canvas.size - 0.5
    angle = canvas.random.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y = y / np.float32(tilt)
    return x * cos - y * sin, x * sin + y * cos


def _coloured(base: Colour, tone: Pixels) -> Pixels:
    return planes(base) * tone


def _wood(canvas: Canvas, tilt: float) -> Pixels:
    u, v = _grid(canvas, tilt)
    base = pick(canvas, ((165, 115, 70), (120, 78, 48), (200, 160, 112), (90, 65, 50), (150, 140, 130)))
    width = canvas.random.uniform(0.16, 0.4)
    plank = np.floor(v / width)
    field = canvas.noise((512, 512))
    across = ((v * 900).astype(np.int32) + (plank * 57).astype(np.int32)) % 512
    along = (u * 60 + plank * 31).astype(np.int32) % 512
    tone = 1 + 0.22 * field[across, along] + 0.12 * field[(plank * 97).astype(np.int32) % 512, 5]
    seam = np.abs(v / width - plank - 0.5) > 0.485
    return _coloured(base, tone * np.where(seam, np.float32(0.55), np.float32(1)))


def _check(canvas: Canvas, tilt: float) -> Pixels:
    u, v = _grid(canvas, tilt)
    width = canvas.random.uniform(0.05, 0.13)
    colour = planes(pick(canvas, CLOTHS))
    dark = ((u / width % 1 < 0.5).astype(np.float32) + (v / width % 1 < 0.5)) / 2
    cloth = np.float32(238) + (colour - np.float32(238)) * dark
    weave = 1 + 0.06 * np.sign((u * 130 % 1 - 0.5) * (v * 130 % 1 - 0.5)) + 0.1 * canvas.noise(u.shape, 32)
    return np.asarray(cloth * weave)


def _marble(canvas: Canvas, tilt: float) -> Pixels:
    u, _ = _grid(canvas, tilt)
    base = pick(canvas, ((228, 226, 222), (205, 200, 196), (60, 62, 66), (190, 200, 192)))
    veins = np.abs(canvas.noise(u.shape, 8) * 1.4 + u * 0.5)
    return _coloured(base, 1 - 0.45 * np.clip(1 - veins * 9, 0, 1) + 0.05 * canvas.noise(u.shape, 2))


def _grass(canvas: Canvas, tilt: float) -> Pixels:
    size = canvas.size
    base = pick(canvas, ((78, 120, 48), (100, 130, 60)))
    blades = canvas.noise((size, size // 4)).repeat(4, axis=0)[:size].repeat(4, axis=1)[:, :size]
    fine = canvas.noise((size // 3 + 1, size)).repeat(3, axis=0)[:size]
    return _coloured(base, 1 + 0.45 * fine + 0.2 * blades[:size, :size] + 0.2 * canvas.noise((size, size), 32))


def _steel(canvas: Canvas, tilt: float) -> Pixels:
    u, v = _grid(canvas, tilt)
    brushed = canvas.noise((512, 512))[(v * 700).astype(np.int32) % 512, (u * 25).astype(np.int32) % 512]
    return _coloured(canvas.vary((165, 168, 172), 25), 1 + 0.09 * brushed + 0.35 * u)


def _plain(canvas: Canvas, tilt: float) -> Pixels:
    u, _ = _grid(canvas, tilt)
    base = pick(canvas, (*CLOTHS, (225, 215, 195), (235, 232, 228), (70, 75, 82), (150, 185, 190)))
    return _coloured(base, 1 + 0.3 * u + 0.05 * canvas.noise(u.shape, 2))


def _slate(canvas: Canvas, tilt: float) -> Pixels:
    size = canvas.size
    base = pick(canvas, ((72, 76, 82), (95, 90, 88), (130, 125, 118)))
    return _coloured(base, 1 + 0.25 * canvas.noise((size, size), 8) + 0.12 * canvas.noise((size, size)))


def _tiles(canvas: Canvas, tilt: float) -> Pixels:
    u, v = _grid(canvas, tilt)
    width = canvas.random.uniform(0.18, 0.35)
    base = pick(canvas, ((215, 205, 190), (120, 160, 165), (190, 110, 80), (235, 235, 230)))
    joint = (u / width % 1 < 0.05) | (v / width % 1 < 0.05)
    lot = canvas.noise((256, 256))
    tone = 1 + 0.15 * lot[np.floor(u / width).astype(int) * 37 % 256, np.floor(v / width).astype(int) * 53 % 256]
    return _coloured(base, np.where(joint, np.float32(0.7), tone) + 0.04 * canvas.noise(u.shape, 2))


TABLES: tuple[Callable[[Canvas, float], Pixels], ...] = (
    _wood, _wood, _check, _check, _marble, _grass, _steel, _plain, _plain, _slate, _tiles,
)  # fmt: skip


def lay_table(canvas: Canvas, tilt: float) -> None:
    """Fill the picture with a table top; seen aslant, its far end may fade into a blurred room."""
    random = canvas.random
    canvas.pixels[:] = TABLES[random.randint(len(TABLES))](canvas, tilt)
    if tilt < 0.8 and random.rand() < 0.5:
        _far_room(canvas, random.uniform(0.12, 0.3))


def _far_room(canvas: Canvas, horizon: float) -> None:
    random, size = canvas.random, canvas.size
    room = Canvas(size, random)
    room.pixels[:] = _coloured(
        pick(canvas, (*CLOTHS, (60, 50, 45), (40, 45, 60), (170, 180, 175))), np.full((size, size), 0.8, np.float32)
    )
    for _ in range(random.randint(6, 16)):
        lamp = Pose(random.uniform(0, size), random.uniform(0, size * horizon), size * random.uniform(0.02, 0.06))
        warm: Colour = (255, random.uniform(190, 240), random.uniform(120, 220))
        room.shape(lamp, ellipse(1, 1), warm, puff=0.1, alpha=random.uniform(0.25, 0.7))
    rows = np.linspace(0, 1, size, dtype=np.float32)
    fade = np.clip((horizon - rows) / 0.06 + 0.5, 0, 1)[:, None]
    canvas.pixels += (room.pixels - canvas.pixels) * fade


def _plate(canvas: Canvas, pose: Pose) -> None:
    china = pick(
        canvas,
        (
            (240, 238, 232),
            (240, 238, 232),
            (225, 220, 205),
            (80, 100, 125),
            (60, 60, 62),
            (190, 90, 70),
            (150, 180, 165),
        ),
    )
    look = {"puff": 0.12, "mottle": 0.02}
    canvas.shape(pose, ellipse(0.86, 0.86), china, lift=0.08, thick=0.05, radius=0.05, gloss=0.25, **look)
    if canvas.random.rand() < 0.3:
        canvas.strokes(pose, [ellipse(0.78, 0.78)], 0.025, pick(canvas, CLOTHS), puff=0)
    canvas.shape(pose, ellipse(0.62, 0.62), canvas.vary(china, 3), radius=0.06, **{**look, "puff": -0.12})


def _paper(canvas: Canvas, pose: Pose) -> None:
    white = canvas.vary((236, 230, 218), 10)
    sheet = box(canvas.random.uniform(1.3, 1.7), canvas.random.uniform(0.9, 1.4))
    sheet = sheet + canvas.random.uniform(-0.06, 0.06, sheet.shape)
    canvas.shape(pose, sheet, white, puff=0.15, radius=0.02, lift=0.03, patch=((205, 198, 184), -0.15), grain=32)
    if canvas.random.rand() < 0.5:
        bars = [box(0.03, 0.8) + [x, 0] for x in np.arange(-0.6, 0.61, 0.12)]
        if canvas.random.rand() < 0.5:
            bars += [box(1.2, 0.03) + [0, y] for y in np.arange(-0.36, 0.37, 0.12)]
        canvas.shapes(pose, bars, pick(canvas, CLOTHS), puff=0, alpha=0.7)


def _tray(canvas: Canvas, pose: Pose) -> None:
    outer, inner = box(1.55, 0.95), box(1.3, 0.68)
    card = pick(canvas, ((236, 228, 214), (190, 150, 105), (205, 60, 50)))
    canvas.shape(pose, outer, card, puff=0.3, radius=0.06, lift=0.12, thick=0.12)
    corners = [np.stack([outer[i], inner[i]]) for i in range(4)]
    if canvas.random.rand() < 0.6:
        step = 0.16
        places = [(i, j) for i in np.arange(-4.5, 5) for j in (-2.75, -2.25, 2.25, 2.75)]
        places += [(i, j) for i in (-4.5, 4.5) for j in np.arange(-2.5, 3)]
        checks = [box(step / 2, step / 2) + np.array(place) * step for place in places]
        canvas.shapes(pose, checks, pick(canvas, CLOTHS), puff=0, alpha=0.85)
    canvas.shape(pose, inner, canvas.vary((228, 218, 200), 8), puff=-0.3, radius=0.08)
    canvas.strokes(pose, corners, 0.015, (150, 130, 110), puff=0)


def _board(canvas: Canvas, pose: Pose) -> None:
    wood = pick(canvas, ((190, 145, 95), (150, 100, 60), (215, 180, 135)))
    canvas.shape(
        pose, box(1.6, 1.05), wood, puff=0.2, radius=0.03, lift=0.08, thick=0.08, patch=(canvas.vary(wood, 30), 0.0)
    )
    rings = [wave(1.5, canvas.random.uniform(0, 0.02), 1) + [0, y] for y in canvas.random.uniform(-0.48, 0.48, 9)]
    canvas.strokes(pose, rings, 0.008, (90, 60, 35), puff=0, alpha=0.35)


def _napkin(canvas: Canvas, pose: Pose) -> None:
    cloth = pick(canvas, (*CLOTHS, (235, 232, 225)))
    canvas.shape(
        pose, box(1.25, 1.25), cloth, puff=0.2, radius=0.02, lift=0.03, patch=(canvas.vary(cloth, 25), 0.0), grain=32
    )
    canvas.strokes(pose, [line(1.2) + [0, 0.55], line(1.2) - [0, 0.55]], 0.02, canvas.vary((225, 220, 210)), puff=0)


SERVED_ON: tuple[Callable[[Canvas, Pose], None], ...] = (_plate, _plate, _plate, _paper, _tray, _board, _napkin)


def _fork(canvas: Canvas, pose: Pose) -> None:
    steel = canvas.vary((178, 180, 184))
    prongs = [line(0.3) + [0.52, y] for y in (-0.06, -0.02, 0.02, 0.06)]
    canvas.strokes(pose, [line(0.7) - [0.1, 0], *prongs], 0.022, steel, puff=0.7, radius=0.02, gloss=0.6, lift=0.04)
    canvas.shape(pose.part(0.31, 0), ellipse(0.1, 0.075), steel, puff=0.5, radius=0.03, gloss=0.5)


def _knife(canvas: Canvas, pose: Pose) -> None:
    blade = np.array([[0, -0.035], [0.5, -0.035], [0.6, 0.0], [0.55, 0.04], [0, 0.04]])
    canvas.shape(pose, blade, canvas.vary((188, 190, 194)), puff=0.4, radius=0.03, gloss=0.6, lift=0.03)
    canvas.strokes(
        pose, [line(0.45) - [0.25, 0]], 0.07, pick(canvas, ((60, 45, 40), (170, 172, 176))), puff=0.6, lift=0.04
    )


def _glass(canvas: Canvas, pose: Pose) -> None:
    random = canvas.random
    drink = pick(canvas, ((120, 50, 25), (235, 190, 60), (230, 225, 215), (205, 70, 60), (170, 205, 215)))
    canvas.shape(pose, ellipse(0.3, 0.3), (215, 222, 225), puff=0.3, radius=0.04, gloss=0.6, lift=0.2, thick=0.5)
    canvas.shape(pose, ellipse(0.26, 0.26), drink, puff=-0.35, radius=0.08)
    for _ in range(random.randint(0, 4)):
        cube = pose.part(random.uniform(-0.12, 0.12), random.uniform(-0.12, 0.12), random.uniform(0, 3))
        canvas.shape(cube, box(0.12, 0.12), (235, 240, 242), puff=0.4, radius=0.03, gloss=0.5, alpha=0.55)


def _leaves(canvas: Canvas, pose: Pose) -> None:
    random = canvas.random
    green = pick(canvas, GREENS)
    for _ in range(random.randint(2, 6)):
        leaf = pose.part(random.uniform(-0.16, 0.16), random.uniform(-0.16, 0.16), random.uniform(0, 6.28))
        canvas.shape(leaf, ellipse(0.13, 0.06), canvas.vary(green), puff=0.5, radius=0.04, lift=0.03, gloss=0.15)
        canvas.strokes(leaf, [line(0.22)], 0.008, (190, 205, 140), puff=0)


def _bowl(canvas: Canvas, pose: Pose) -> None:
    sauce = pick(canvas, ((185, 35, 25), (225, 170, 40), (235, 225, 200), (120, 60, 35), (110, 140, 60)))
    canvas.shape(
        pose,
        ellipse(0.24, 0.24),
        canvas.vary((225, 220, 212), 20),
        puff=0.35,
        radius=0.05,
        lift=0.1,
        thick=0.14,
        gloss=0.3,
    )
    canvas.shape(pose, ellipse(0.19, 0.19), sauce, puff=-0.3, radius=0.05, gloss=0.35)


def _bottle(canvas: Canvas, pose: Pose) -> None:
    sauce = pick(canvas, ((190, 35, 28), (228, 178, 35), (70, 110, 60), (235, 228, 210)))
    canvas.strokes(pose, [line(0.5)], 0.3, sauce, puff=0.7, radius=0.1, gloss=0.45, lift=0.12)
    canvas.shape(
        pose.part(0.5, 0),
        np.array([[-0.12, -0.11], [0.2, -0.025], [0.2, 0.025], [-0.12, 0.11]]),
        canvas.vary(sauce),
        puff=0.6,
        gloss=0.3,
    )
    canvas.shape(pose.part(-0.08, 0), box(0.28, 0.2), (238, 232, 220), puff=0.3, radius=0.08)


def _lemon(canvas: Canvas, pose: Pose) -> None:
    skin = pick(canvas, ((240, 205, 60), (130, 180, 60), (240, 150, 40)))
    canvas.shape(pose, ellipse(0.17, 0.17), skin, puff=0.2, lift=0.04)
    canvas.shape(pose, ellipse(0.15, 0.15), (248, 240, 205), puff=0)
    parts = [np.concatenate([[[0, 0]], ellipse(0.135, 0.135, a, a + 0.62, 8)]) for a in np.arange(8) * np.pi / 4]
    canvas.shapes(pose, parts, canvas.vary(skin, 8), puff=0.2, radius=0.02, gloss=0.2)


def _crumbs(canvas: Canvas, pose: Pose) -> None:
    bits = [canvas.blob(0.016, 0.012) + spot for spot in canvas.random.normal(0, 0.3, (14, 2))]
    canvas.shapes(pose, bits, canvas.vary((200, 150, 90)), puff=0.4, radius=0.01, lift=0.015)


CLUTTER: tuple[Callable[[Canvas, Pose], None], ...] = (
    _fork, _knife, _glass, _leaves, _leaves, _bowl, _bottle, _lemon, _crumbs, _crumbs,
)  # fmt: skip


def finish(canvas: Canvas, size: int) -> Image.Image:
    """Light the scene, reduce it to `size` pixels, and add a camera's colour cast, vignette, blur and grain."""
    random = canvas.random
    exposed = np.ascontiguousarray(np.clip(canvas.pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    shot = Image.fromarray(exposed).resize((size, size), Image.Resampling.LANCZOS)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    tone = 1 + random.uniform(0, 0.5) * (x * np.float32(canvas.light[0]) + y * np.float32(canvas.light[1]))
    tone *= 1 - random.uniform(0, 0.7) * (x * x + y * y)
    warmth = random.uniform(-0.17, 0.17)
    cast = np.array([1 + warmth, 1 + random.uniform(-0.03, 0.03), 1 - warmth], np.float32)
    cast *= np.float32(random.uniform(0.72, 1.18))
    pixels = np.asarray(shot, np.float32) * tone[..., None] * cast
    pixels = (pixels - 120) * np.float32(random.uniform(0.85, 1.2)) + 120
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + (pixels - grey) * np.float32(random.uniform(0.5, 1.2))
    if random.rand() < 0.3:
        soft = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(random.uniform(0.4, 0.9))
        )
        pixels = np.asarray(soft, np.float32)
    grain = random.uniform(0, 5)
    pixels = pixels + grain * random.standard_normal((size, size, 3)).astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
