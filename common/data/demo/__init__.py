"""Drawn pictures of hot dogs and other food: the experiment's job without a download.

Only Pillow and NumPy draw, from outlines, lights and noise. Every picture depends on (seed, split, class, number)
alone, so the same Pillow gives the same pixels anywhere, in any order. The files are PNG, which every framework
decodes alike.

Both classes get the same tables, plates, clutter, lights and side dishes, and much of the other food shares a hot
dog's colours and outline (sausages without a bun, buns without a sausage, filled baguettes), so that no statistic of
colour tells them apart.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from common.data.demo.canvas import Canvas, Pose
from common.data.demo.foods import LOOKALIKES, OTHERS, SIDES, Food
from common.data.demo.hotdogs import hot_dog
from common.data.demo.setting import CLUTTER, SERVED_ON, finish, lay_table
from common.system.errors import RunError, UserError

DEMO_VERSION = 1
"""Raised whenever a picture changes, so that no cache serves older ones."""

CLASSES = ("hotdog", "not-hotdog")
OVERSAMPLING = 2

LOOKALIKE_SHARE = 0.25
"""Share of the other food that resembles a hot dog. At 0.5, 400 pictures are too few to learn it in a few epochs."""

_WORTH_A_PROCESS = 20


class Defaults(NamedTuple):
    """The numbers of pictures, side in pixels and seed that `render` uses unless told otherwise."""

    train: int = 400
    test: int = 200
    size: int = 160
    seed: int = 0


DEFAULTS = Defaults()


def render(
    root: Path,
    train: int = DEFAULTS.train,
    test: int = DEFAULTS.test,
    size: int = DEFAULTS.size,
    seed: int = DEFAULTS.seed,
    progress: bool = True,
    workers: int | None = None,
) -> None:
    """Write `root`/{train,test}/{hotdog,not-hotdog}/NNNN.png: square RGB pictures.

    Args:
        root: The folder, made if need be.
        train: Number of training pictures, half per class.
        test: Number of test pictures, half per class.
        size: Side of a picture in pixels.
        seed: Another seed gives another set of pictures.
        progress: Whether a progress bar may be shown.
        workers: Number of processes, None for one per core; they change the time it takes, never a pixel.

    Raises:
        UserError: A split has fewer than two pictures, or the size is below 16. RunError comes from a process that
            fails.
    """
    if min(train, test) < 2 or size < 16:
        raise UserError(f"The demo takes at least 2 pictures per split and 16 pixels, not {train}, {test} and {size}.")
    root = Path(root)
    for path, _ in _jobs(root, train, test):
        path.parent.mkdir(parents=True, exist_ok=True)
    shares = min(workers or os.cpu_count() or 1, (train + test) // _WORTH_A_PROCESS)
    if shares < 2 or not sys.executable:
        render_share(root, train, test, size, seed)
        return
    _render_in_processes([str(number) for number in (train, test, size, seed)], root, shares, train + test, progress)


def render_share(root: Path, train: int, test: int, size: int, seed: int, share: int = 0, shares: int = 1) -> None:
    """Draw every `shares`-th picture, from number `share` on, into folders that exist.

    Args:
        root: The folder of the data set.
        train: Number of training pictures, as in `render`.
        test: Number of test pictures.
        size: Side of a picture in pixels.
        seed: Seed of the set.
        share: Number of this share, from 0.
        shares: Number of shares in all.
    """
    for path, (split, label, number) in list(_jobs(root, train, test))[share::shares]:
        picture(label, number, split=split, size=size, seed=seed).save(path, compress_level=2)


def _render_in_processes(numbers: list[str], root: Path, shares: int, total: int, progress: bool) -> None:
    # Not multiprocessing: fork is unsafe beside a framework's threads, and spawn runs the caller's script again.
    paths = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "common.data.demo", str(root), *numbers]
    started = [
        subprocess.Popen([*command, str(share), str(shares)], env=env, stderr=subprocess.PIPE, text=True)
        for share in range(shares)
    ]
    try:
        _watch(started, root, total, progress)
        for process in started:
            _, complaint = process.communicate()
            if process.returncode:
                raise RunError(f"Drawing the demo pictures failed: {(complaint.strip() or 'no reason given')[-500:]}")
    finally:
        for process in started:
            process.kill()
            process.wait()


def _watch(started: list["subprocess.Popen[str]"], root: Path, total: int, progress: bool) -> None:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task("drawing the demo", total=total)
        while any(process.poll() is None for process in started):
            bar.update(task, completed=sum(1 for _ in root.glob("*/*/*.png")))
            time.sleep(0.1)


def _jobs(root: Path, train: int, test: int) -> Iterator[tuple[Path, tuple[int, int, int]]]:
    for split, (folder, count) in enumerate((("train", train), ("test", test))):
        for place in range(count):
            number, label = divmod(place, len(CLASSES))
            yield root / folder / CLASSES[label] / f"{number:04d}.png", (split, label, number)


def picture(label: int, number: int, *, split: int = 0, size: int = DEFAULTS.size, seed: int = 0) -> Image.Image:
    """Draw one picture.

    Args:
        label: The class: 0 is hot dog, 1 is other food.
        number: Number of the picture in its class and split.
        split: 0 for train, 1 for test.
        size: Side in pixels.
        seed: Seed of the set.

    Returns:
        The picture, RGB, `size` pixels square.
    """
    state = np.random.SeedSequence((seed, split, label, number)).generate_state(4)
    random = np.random.RandomState(state)
    canvas = Canvas(size * OVERSAMPLING, random)
    tilt = float(random.choice([1.0, 1.0, 0.85, 0.7, 0.6]))
    lay_table(canvas, tilt)
    main = _pose(canvas, tilt)
    for _ in range(random.randint(0, 3)):
        _aside(canvas, CLUTTER, tilt, 0.5)
    if random.rand() < 0.7:
        plate = Pose(main.x, main.y, main.scale * random.uniform(0.85, 1.0), main.angle, tilt)
        SERVED_ON[random.randint(len(SERVED_ON))](canvas, plate)
    if random.rand() < 0.3:
        _aside(canvas, SIDES, tilt, 0.45)
    _serve(canvas, main, hot_dog if label == 0 else _other(canvas))
    if random.rand() < 0.4:
        _aside(canvas, CLUTTER, tilt, 0.45)
    return finish(canvas, size)


def _other(canvas: Canvas) -> Food:
    foods = LOOKALIKES if canvas.random.rand() < LOOKALIKE_SHARE else OTHERS
    return foods[canvas.random.randint(len(foods))]


def _pose(canvas: Canvas, tilt: float) -> Pose:
    random = canvas.random
    x, y = random.uniform(0.4, 0.6, 2) * canvas.size
    angle = random.uniform(-0.9, 0.9) + np.pi * random.randint(2)
    return Pose(x, y, random.uniform(0.66, 1.0) * canvas.size, angle, tilt)


def _aside(canvas: Canvas, things: tuple[Food, ...], tilt: float, scale: float) -> None:
    """Put one thing near the edge, where it may be cut off or overlap the food a little."""
    random = canvas.random
    angle = random.uniform(0, 2 * np.pi)
    reach = random.uniform(0.48, 0.62) * canvas.size
    x, y = canvas.size / 2 + reach * np.cos(angle), canvas.size / 2 + reach * np.sin(angle)
    pose = Pose(float(x), float(y), random.uniform(0.75, 1.2) * scale * canvas.size, random.uniform(0, 2 * np.pi), tilt)
    things[random.randint(len(things))](canvas, pose)


def _serve(canvas: Canvas, main: Pose, food: Food) -> None:
    """Draw the food once, or two or three of it side by side or strewn."""
    random = canvas.random
    count = random.choice([1, 1, 1, 2, 3])
    if count == 1:
        food(canvas, main)
        return
    turn = 0.0 if random.rand() < 0.6 else 1.0
    for place in range(count):
        aside = (place - (count - 1) / 2) * random.uniform(0.46, 0.56)
        food(canvas, main.part(random.uniform(-0.08, 0.08), aside, turn * random.uniform(-0.7, 0.7), 0.82))
