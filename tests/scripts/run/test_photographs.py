"""What a run chooses for people who come with photographs: the preset, the weights, and epochs in a time limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import scripts.run
from common.network import sources
from common.spec.presets import load_preset
from scripts.cli import options
from scripts.cli.arguments import parse
from tests.conftest import write_pictures
from tests.scripts.run.test_run import call, fake, small

__all__ = ["fake"]


def photographs(root: Path) -> list[str]:
    """What a user types, but for what makes it fast."""
    return ["--data", str(root), "--image-size", "64", "--workers", "0", "--weights", "distilled", "--output", "out"]


def test_data_without_a_preset_are_photographs(monkeypatch, capsys, tmp_path) -> None:
    root = write_pictures(tmp_path / "flowers", ["daisy", "orchid", "rose"], train=10, test=2)
    assert call(monkeypatch, scripts.run, *photographs(root)) == 0
    printed = capsys.readouterr().out
    assert "No --preset given, so this is photos: " in printed
    assert "--preset d2l" not in printed
    record = json.loads(Path("out/record.json").read_text())
    spec, photos = record["spec"], load_preset("photos")
    assert (spec["strategy"], spec["epochs"], spec["keep"]) == ("feature-extraction", 40, "best")
    assert (spec["validation"], spec["early_stopping"]) == (photos.validation, photos.early_stopping)
    assert record["data"]["validation_images"] == 6
    assert record["resolved"]["phases"][0]["reused_features"]
    # Named, it says nothing of itself; for the demo, it says where the book's experiment is.
    assert call(monkeypatch, scripts.run, *photographs(root), "--preset", "photos", "--overwrite") == 0
    assert "No --preset given" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments", "preset"),
    [
        ("run", [], "demo"), ("run", ["--data", "demo"], "demo"), ("run", ["--data=x"], "photos"),
        ("run", ["--data", "hotdog"], "photos"), ("run", ["--data", "x", "--preset", "d2l"], "d2l"),
        ("sweep", ["--data", "x"], "photos"), ("sweep", [], "demo"), ("compare", ["--data", "x"], "demo"),
        ("inspect", ["--data", "x"], "demo"), ("show", ["--data", "x"], "demo"),
    ],
)  # fmt: skip
def test_the_preset_of_those_who_name_none(name, arguments, preset) -> None:
    chosen = parse(options.RunOptions, name, arguments)
    assert chosen.preset == preset
    assert chosen.spec == load_preset(preset).replace(data=chosen.spec.data)


def test_the_demo_without_a_preset_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr("common.runs.experiment.run", lambda *arguments: pytest.skip("it would draw the pictures"))
    with pytest.raises(pytest.skip.Exception):
        scripts.run.main(["--output", "out"])
    printed = capsys.readouterr().out
    assert "No --preset given, so this is demo: hot dogs" in printed
    assert "--preset d2l" in printed


def test_weights_auto_without_a_hub_are_said_and_recorded(monkeypatch, capsys, pictures, tmp_path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    sources._choose.cache_clear()
    assert call(monkeypatch, scripts.run, *small(pictures), "--weights", "auto", "--output", "out") == 0
    sources._choose.cache_clear()
    printed = capsys.readouterr().out
    assert "weights auto: distilled, " in printed
    record = json.loads(Path("out/fine-tune/record.json").read_text())
    assert record["spec"]["weights"] == record["resolved"]["weights"]["weights"] == "distilled"
    assert record["resolved"]["weights"]["why"] in printed


def test_processes_of_one_run_are_told_the_weights(monkeypatch, capsys, pictures) -> None:
    monkeypatch.setattr(sources, "_choose", lambda *network: sources.Choice("tv_in1k", "weights auto: tv_in1k, ours"))
    told: list[list[str]] = []
    monkeypatch.setattr("scripts.run.launch.launch", lambda options, arguments: told.append(arguments) or 0)
    asked = [*small(pictures), "--devices", "2", "--weights", "auto"]
    assert call(monkeypatch, scripts.run, *asked) == 0
    assert told == [[*asked, "--weights", "tv_in1k"]]
    assert "weights auto: tv_in1k, ours" in capsys.readouterr().out


def test_a_time_limit_is_kept_and_recorded(monkeypatch, capsys, pictures) -> None:
    limited = [*small(pictures), "--strategy", "fine-tune", "--epochs", "3", "--time-limit", "10m", "--output", "out"]
    assert call(monkeypatch, scripts.run, *limited) == 0
    assert "time limit 10m: all 3 epochs fit, at " in capsys.readouterr().out
    planned = json.loads(Path("out/record.json").read_text())["resolved"]["time_limit"]
    assert (planned["seconds"], planned["planned_epochs"], planned["actual_epochs"]) == (600, 3, 3)


def test_a_time_limit_that_no_epoch_fits_into_leaves_nothing(monkeypatch, capsys, pictures) -> None:
    arguments = [*small(pictures), "--strategy", "fine-tune", "--time-limit", "1s", "--output", "out"]
    assert call(monkeypatch, scripts.run, *arguments) == 2
    assert "--time-limit 1s: 1 epoch of fine-tune would take" in capsys.readouterr().err
    assert not Path("out").exists()
