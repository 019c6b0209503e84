"""Options and fixtures that all tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from common.data.folder import ImageData, read_folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=backends.NAMES, help="the backend that tests/backends examines")
    parser.addoption("--device", choices=("cpu", "gpu"), default="cpu", help="where the tests of a backend compute")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("FINE_TUNING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that no other test has filled."""
    monkeypatch.setenv("FINE_TUNING_CACHE", str(tmp_path / "fresh-cache"))


def write_pictures(root: Path, classes: list[str], train: int, test: int, size: tuple[int, int] = (80, 72)) -> Path:
    """A small data set: noisy pictures whose tint tells the class."""
    generator = np.random.default_rng(7)
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 200, (size[1], size[0], 3))
                pixels[..., label % 3] += 50
                coarse = Image.fromarray(pixels.astype(np.uint8)).resize((8, 8)).resize(size, Image.Resampling.BICUBIC)
                coarse.save(folder / f"{index:03d}.png")
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """Two classes of 11 training and 7 test pictures, 80 x 72 px: batches of 8 leave incomplete last ones."""
    root = write_pictures(tmp_path_factory.mktemp("pictures"), ["hotdog", "not-hotdog"], train=11, test=7)
    return read_folder(root, progress=False)


@pytest.fixture(scope="session")
def odd_sizes(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """Eleven pictures of noise to train on and to test on: tall, wide, smaller than a crop, and a pixel wide."""
    root, generator = tmp_path_factory.mktemp("odd-sizes"), np.random.default_rng(5)
    sizes = [
        (80, 72),
        (150, 100),
        (100, 150),
        (64, 200),
        (200, 64),
        (30, 20),
        (20, 90),
        (64, 64),
        (1, 50),
        (50, 1),
        (97, 97),
    ]
    for split in ("train", "test"):
        for number, (width, height) in enumerate(sizes):
            path = root / split / ("hotdog", "not-hotdog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (height, width, 3)).astype(np.uint8)).save(path)
    return read_folder(root, progress=False)
