import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import demo
from common.data.demo.foods import LOOKALIKES, OTHERS
from common.system.errors import RunError, UserError


def pixels(root: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(root).as_posix(): np.asarray(Image.open(path)) for path in sorted(root.rglob("*.png"))}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    demo.render(root, train=12, test=6, size=32, progress=False, workers=1)
    return pixels(root)


def test_layout_and_balance(drawn):
    folders = [name.rsplit("/", 1)[0] for name in drawn]
    counts = {folder: folders.count(folder) for folder in folders}
    assert counts == {"train/hotdog": 6, "train/not-hotdog": 6, "test/hotdog": 3, "test/not-hotdog": 3}
    assert "test/hotdog/0000.png" in drawn
    assert all(picture.shape == (32, 32, 3) for picture in drawn.values())


def test_the_same_pixels_from_any_number_of_processes(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_WORTH_A_PROCESS", 2)
    demo.render(tmp_path, train=12, test=6, size=32, progress=False, workers=3)
    again = pixels(tmp_path)
    assert again.keys() == drawn.keys()
    assert all(np.array_equal(again[name], drawn[name]) for name in drawn)


def test_no_picture_comes_twice(drawn):
    assert len({picture.tobytes() for picture in drawn.values()}) == len(drawn)


def test_a_larger_set_begins_with_the_smaller_one(drawn):
    again = np.asarray(demo.picture(1, 2, split=1, size=32))
    assert np.array_equal(again, drawn["test/not-hotdog/0002.png"])


def test_the_seed_changes_every_picture():
    first, second = (np.asarray(demo.picture(0, 0, size=32, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("food", [demo.hot_dog, *LOOKALIKES, *OTHERS], ids=lambda food: food.__name__)
def test_every_food_draws_something_at_every_tilt(food):
    for tilt in (1.0, 0.6):
        canvas = demo.Canvas(64, np.random.RandomState(3))
        canvas.pixels[:] = 128
        food(canvas, demo.Pose(32, 32, 40, 0.4, tilt))
        assert np.isfinite(canvas.pixels).all()
        assert (np.abs(canvas.pixels - 128).max(axis=0) > 10).mean() > 0.04


def test_at_least_twelve_other_foods():
    assert len({*LOOKALIKES, *OTHERS}) >= 12


def test_the_classes_share_their_mean_colour():
    means = [
        np.mean([np.asarray(demo.picture(label, number, size=24)).mean(axis=(0, 1)) for number in range(60)], axis=0)
        for label in (0, 1)
    ]
    assert np.abs(means[0] - means[1]).max() < 30


@pytest.mark.parametrize("numbers", [(1, 6, 32), (6, 0, 32), (6, 6, 8)])
def test_too_few_pictures_or_pixels(tmp_path, numbers):
    with pytest.raises(UserError, match="at least 2 pictures per split and 16 pixels"):
        demo.render(tmp_path, *numbers, progress=False)


def test_a_failing_process_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_WORTH_A_PROCESS", 2)
    monkeypatch.setattr(demo, "_jobs", lambda root, train, test: iter(()))
    (tmp_path / "train").write_text("in the way")
    with pytest.raises(RunError, match="(?s)Drawing the demo pictures failed: .*train"):
        demo.render(tmp_path, 6, 6, 32, progress=False, workers=2)


def test_drawing_leaves_the_callers_script_alone(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from pathlib import Path\nfrom common.data import demo\n"
        "print('run')\ndemo._WORTH_A_PROCESS = 2\n"
        "demo.render(Path(__file__).parent / 'out', 4, 4, 16, progress=False, workers=2)\n"
    )
    root = Path(demo.__file__).parents[3]
    done = subprocess.run([sys.executable, script], env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run\n"
    assert len(list((tmp_path / "out").rglob("*.png"))) == 8
