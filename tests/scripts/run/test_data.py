"""Data as people have it, through the command: what is said, what the record holds, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import scripts.run
from tests.common.data.pictures import rows_of, write_classes, write_noise, write_table, write_zip
from tests.scripts.run.test_run import call, fake, small

__all__ = ["fake"]


def run(monkeypatch: pytest.MonkeyPatch, data: Path, output: str, *more: str) -> dict[str, Any]:
    """The record of a run on the data."""
    arguments = [*small(data), "--strategy", "scratch", "--epochs", "1", "--output", output, *more]
    assert call(monkeypatch, scripts.run, *arguments) == 0
    record: dict[str, Any] = json.loads(Path(output, "record.json").read_text())
    return record


def test_every_layout_gives_the_same_data_and_numbers(monkeypatch, capsys) -> None:
    write_classes(Path("photos"))
    shutil.copytree("photos", "wrapped/photos")
    write_zip(Path("photos.zip"), Path("photos"), Path())
    write_table(Path("labels.tsv"), rows_of(Path("photos"), Path()), "\t")
    line = "2 classes, 16 training images, 4 test images; no test folder: 20 % held back, seed 0"
    records = {}
    for number, place in enumerate(("photos", "wrapped", "photos.zip", "labels.tsv")):
        records[place] = run(monkeypatch, Path(place), f"out{number}")
        assert capsys.readouterr().out.count(line) == 1
    assert {record["data"]["summary"] for record in records.values()} == {
        line, f"{line}; table labels.tsv (file_name, label)",
    }  # fmt: skip
    data = [{k: v for k, v in r["data"].items() if k not in ("name", "summary")} for r in records.values()]
    assert all({**other, "held_back": 0} == {**data[0], "held_back": 0} for other in data)
    assert (
        len(
            {
                json.dumps([{**epoch, "seconds": 0, "images_per_second": 0} for epoch in r["epochs"]])
                for r in records.values()
            }
        )
        == 1
    )
    held_back = records["photos"]["data"]["held_back"]
    assert held_back == {"seed": 0, "share": 0.2, "near_duplicates": 0, "test": held_back["test"]}
    assert len(held_back["test"]) == 4
    assert all((Path("photos") / name).exists() for name in held_back["test"])


def test_two_strategies_say_it_once(monkeypatch, capsys) -> None:
    write_classes(Path("photos"))
    assert call(monkeypatch, scripts.run, *small(Path("photos")), "--output", "out") == 0
    assert capsys.readouterr().out.count("2 classes, 16 training images") == 1


def test_the_seed_of_the_run_leaves_the_test_images_alone(monkeypatch) -> None:
    write_classes(Path("photos"))
    seeds = [("--seed", "0"), ("--seed", "1"), ("--split-seed", "1")]
    first, second, third = (
        run(monkeypatch, Path("photos"), "-".join(pair).strip("-"), *pair)["data"] for pair in seeds
    )
    assert first["fingerprint"] == second["fingerprint"] != third["fingerprint"]
    assert third["held_back"]["seed"] == 1


def test_a_validation_split_of_the_data_is_the_one_that_chooses(monkeypatch, capsys) -> None:
    for number, name in enumerate(("train", "val", "test")):
        write_classes(Path("photos") / name, count=6 - number, first=50 * number)
    record = run(monkeypatch, Path("photos"), "plain")
    assert (record["data"]["train_images"], record["data"]["validation_images"]) == (12, 10)
    assert record["final"]["validation_accuracy"] is not None
    chosen = run(monkeypatch, Path("photos"), "best", "--validation", "0.5", "--keep", "best")
    assert (chosen["data"]["train_images"], chosen["data"]["validation_images"]) == (12, 10)
    assert "; validation images as the data has them, none held back" in capsys.readouterr().out


def test_test_images_that_are_trained_on_are_said_and_recorded(monkeypatch, capsys) -> None:
    write_classes(Path("photos/train"))
    write_classes(Path("photos/test"), first=50)
    shutil.copy("photos/train/cat/03.png", "photos/test/cat/copy.png")
    record = run(monkeypatch, Path("photos"), "out")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(said) == 1
    assert "1 of the 21 test images" in said[0]
    assert "test/cat/copy.png, which is train/cat/03.png" in said[0]
    assert record["data"]["test_images_in_train"] == 1


def spoil() -> None:
    """What the unhappy arguments name."""
    write_classes(Path("good"))
    for name in ("loose", "mixed", "single", "inside", "only-test", "two-vals", "nested"):
        shutil.copytree("good", name)
    shutil.rmtree("loose/dog")
    shutil.move("loose/cat/00.png", "loose/a.png")
    write_noise(Path("mixed/stray.png"), 99)
    write_noise(Path("single/cow/a.png"), 99)
    os.mkfifo("inside/cat/pipe.png")
    shutil.rmtree("only-test")
    write_classes(Path("only-test/test"))
    for name in ("train", "val", "valid"):
        shutil.copytree("good", f"two-vals/{name}")
    shutil.rmtree("nested")
    for name in ("train", "test"):
        write_noise(Path("nested/cat") / name / "a.png", 5)
        write_noise(Path("nested/dog") / name / "a.png", 6)
    rows = rows_of(Path("good"), Path())
    tables = {
        "no-label.csv": [{**rows[0], "label": ""}], "two-labels.jsonl": [rows[0], {**rows[0], "label": "dog"}],
        "gone.csv": [{"file_name": "gone.png", "label": "cat"}, rows[-1]], "columns.tsv": [{"a": 1, "b": 2}],
        "splits.csv": [{**rows[0], "split": "train"}, {**rows[-1], "split": "exam"}],
        "untrained.csv": [{**rows[0], "split": "test"}], "one-class.csv": rows[:5],
    }  # fmt: skip
    for name, lines in tables.items():
        write_table(Path(name), lines, "\t" if name.endswith("tsv") else ",")
    Path("empty.csv").touch()
    Path("empty.jsonl").touch()
    Path("binary.csv").write_bytes(bytes(range(256)))
    Path("photos.tar.gz").write_bytes(b"\x1f\x8b no more")
    Path("photos.rar").write_bytes(b"Rar!")
    shutil.copy("good/cat/00.png", "cat.png")
    os.mkfifo("pipe.csv")
    os.mkfifo("pipe.zip")


UNHAPPY = [
    "loose", "mixed", "single", "inside", "only-test", "two-vals", "nested", "no-label.csv", "two-labels.jsonl",
    "gone.csv", "columns.tsv", "splits.csv", "untrained.csv", "one-class.csv", "empty.csv", "empty.jsonl", "binary.csv",
    "photos.tar.gz", "photos.rar", "cat.png", "pipe.csv", "pipe.zip", "gone.jsonl",
]  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [*(["--data", name] for name in UNHAPPY), ["--data", "good", "--split-seed", "-1"],
    ["--data", "good", "--zip-encoding", "klingon"]], ids=" ".join,
)  # fmt: skip
def test_unhappy_data_are_explained_and_lose_nothing(monkeypatch, capsys, arguments) -> None:
    spoil()
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert call(monkeypatch, scripts.run, "--strategy", "scratch", "--epochs", "1", *arguments) == 2
    told = "".join(capsys.readouterr())
    assert "Traceback" not in told
    assert told.count("error: ") == 1
    assert arguments[-1].split(".")[0] in told
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
