"""The benchmark as a user meets it, with NumPy in the place of the framework and a tab that answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import backends
import scripts.bench
from common.data import decoded
from common.devices import precision
from scripts.bench import measurements
from scripts.cli import command
from tests.fake_backend import FakeBackend


class FakeTab:
    def __init__(self, backend: str) -> None:
        self.images = (0, 0)

    def __enter__(self) -> FakeTab:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def configure(self, folder: Path, image_size: int, batch_size: int, classes: int, frozen: bool = False) -> None:
        self.images = tuple(len(list((folder / split).glob("*/*"))) for split in ("train", "test"))

    def train(self) -> tuple[int, float]:
        return self.images[0], 0.01

    def test(self) -> tuple[int, float]:
        return self.images[1], 0.01

    def peak_memory(self) -> int:
        return 1000


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    monkeypatch.setattr(measurements, "ChapterProcess", FakeTab)
    monkeypatch.setattr(command, "hand_over", lambda *arguments: None)
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(["amx_bf16"]))
    monkeypatch.chdir(tmp_path)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.start("bench", scripts.bench.main, scripts.bench.backend_of)
    return int(ended.value.code or 0)


def test_tables_and_json_for_every_size(monkeypatch, capsys, pictures) -> None:
    sizes = ["--image-size", "64", "72", "--batch-size", "4", "8", "--steps", "1", "--repeats", "2"]
    options = [*sizes, "--data", str(pictures.root), "--output", "out/bench.json", "--workers", "0"]
    jobs = ["--jobs", "fine-tune", "feature-extraction", "--epochs", "2"]
    assert call(monkeypatch, "--backend", "torch", *options, *jobs) == 0
    printed = capsys.readouterr().out
    assert "precision auto is bf16: the processor has AMX" in printed
    assert printed.count("training, the chapter's tab") == 4
    assert printed.count("fine-tune, 2 epochs, bf16: the tab") == 4
    stored = json.loads(Path("out/bench.json").read_text())
    assert [(r["image_size"], r["batch_size"]) for r in stored["results"]] == [(64, 4), (64, 8), (72, 4), (72, 8)]
    assert stored["precisions"] == {"fp32": "the tab's", "bf16": "the processor has AMX"}
    assert stored["peak_memory_bytes"]["tab"] == 1000
    first = {(case["job"], case["way"], case["precision"]): case for case in stored["results"][0]["cases"]}
    assert first["train", "tab", "fp32"]["per_second"] == 400
    ours = first["train", "ours", "bf16"]
    ratios = [ours_rate / 400 for ours_rate in ours["per_second_by_round"]]
    assert ours["times_tab"] == pytest.approx(sum(ratios) / 2)
    assert ours["share_of_peak"] > 0
    assert printed.count("feature-extraction, 2 epochs, bf16: the tab") == 4
    assert [job["strategy"] for job in stored["jobs"]] == ["fine-tune", "feature-extraction"] * 4
    # Nothing is left of weights, links and pixels.
    assert [path.name for path in Path().iterdir()] == ["out"]


def test_images_are_presized_if_asked(monkeypatch, pictures) -> None:
    asked = []
    original = decoded.attach

    def attach(spec, data, folder=None, short_side=None):
        asked.append((spec.presize, short_side))
        return original(spec, data, folder, short_side)

    monkeypatch.setattr(decoded, "attach", attach)
    options = ["--image-size", "64", "--batch-size", "4", "--steps", "1", "--repeats", "1", "--epochs", "1"]
    options += ["--data", str(pictures.root), "--output", "bench.json", "--jobs", "fine-tune", "--presize", "1.5"]
    assert call(monkeypatch, *options) == 0
    # The whole training, and the slices.
    assert asked == [(1.5, 110), (1.5, 110)]
    assert json.loads(Path("bench.json").read_text())["options"]["presize"] == 1.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--repeats", "0"], "--repeats 0"),
        (["--steps", "0"], "--steps 0"),
        (["--presize", "0.5"], "presize = 0.5: expected at least 1"),
        (["--jobs", "scratch"], "the jobs are fine-tune, feature-extraction"),
        (["--batch-size", "1000"], "--batch-size 1000: there are only 22 train images"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_are_said(monkeypatch, capsys, pictures, options, words) -> None:
    given = [] if "--data" in options else ["--data", str(pictures.root)]
    assert call(monkeypatch, "--image-size", "64", *given, *options) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()
