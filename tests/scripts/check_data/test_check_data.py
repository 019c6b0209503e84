"""`scripts.check_data` as a user meets it, and the planting by which it is measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scripts.check_data
from common.audit import features
from common.contract.watch import Silent
from common.data.folder import read_folder
from common.system.errors import UserError
from scripts.check_data import plant, planted, score, scores, steps
from scripts.cli import command
from scripts.environments.definitions import ready_python
from tests.common.audit.photographs import scene, write_scenes
from tests.fake_backend import FakeBackend


@pytest.fixture(autouse=True)
def work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working folder with a small data set, in this process's environment."""
    monkeypatch.setattr(command, "hand_over", lambda *arguments: None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_scenes(Path("pets"))


def call(monkeypatch: pytest.MonkeyPatch, module, *arguments: str) -> int:
    """Run a command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command.start(module.__name__.removeprefix("scripts."), module.main)
    return int(ended.value.code or 0)


def by_class(spec, samples):
    """Features that know the right class of the scenes: that of the folder they lay in at first."""
    generator = np.random.default_rng(0)
    right = np.array([[sample.name.count("cat-"), sample.name.count("dog-")] for sample in samples], np.float32)
    return np.concatenate([5 * right, generator.normal(size=(len(samples), 4)).astype(np.float32)], axis=1)


def test_a_check_leaves_a_page_and_the_same_as_data(monkeypatch, capsys) -> None:
    shutil.copy("pets/train/cat/0.png", "pets/test/cat/leak.png")
    assert call(monkeypatch, scripts.check_data, "pets", "--no-labels") == 0
    printed = capsys.readouterr().out
    assert "2 classes, 12 train and 7 test pictures" in printed
    assert "1 picture" in printed
    assert "both in train and test" in printed
    (page,) = Path("runs").glob("*-check-pets/check.html")
    assert str(page) in printed
    content = json.loads(page.with_name("check.json").read_text())
    assert content["duplicates"][0]["between_splits"] is True
    assert content["labels"] == {"unchecked": "--no-labels was given", "suspects": []}
    assert content["command"] == "python -m scripts.check_data pets --no-labels"
    assert sorted(path.name for path in page.parent.iterdir()) == ["check.html", "check.json"]


def test_wrong_labels_are_found_and_left_out_of_what_is_kept(monkeypatch, capsys) -> None:
    for number in range(60):
        label = ("cat", "dog")[number % 2]
        scene(100 + number).save(f"pets/train/{label}/{label}-{number}.png")
    Path("pets/train/cat/cat-0.png").rename("pets/train/dog/cat-0.png")
    monkeypatch.setattr(steps, "compute_features", by_class)
    arguments = ["pets", "--output", "out", "--write-clean", "clean.csv"]
    assert call(monkeypatch, scripts.check_data, *arguments) == 0
    content = json.loads(Path("out/check.json").read_text())
    first = content["labels"]["suspects"][0]
    assert (first["picture"], first["given"], first["suggested"]) == ("train/dog/cat-0.png", "dog", "cat")
    assert content["left_out"]["train/dog/cat-0.png"] == "likely 'cat', not 'dog'"
    rows = Path("clean.csv").read_text().splitlines()
    assert rows[0] == "file_name,label,split"
    assert "pets/train/dog/dog-1.png,dog,train" in rows
    assert not any("dog/cat-0.png" in row for row in rows)
    assert f"{len(rows) - 1} pictures to keep" in capsys.readouterr().out


def test_too_few_pictures_to_check_labels_are_said(monkeypatch, capsys) -> None:
    write_scenes(Path("few"), train=1, test=1)
    shutil.copy("few/train/cat/0.png", "few/test/cat/0.png")
    assert call(monkeypatch, scripts.check_data, "few") == 0
    assert "Labels were not checked: a class has fewer than two different pictures." in capsys.readouterr().out


def test_clean_data_is_said_to_be_clean(monkeypatch, capsys) -> None:
    write_scenes(Path("fine"), train=20, test=2)
    assert call(monkeypatch, scripts.check_data, "fine", "--no-labels", "--output", "out") == 0
    assert "Nothing was found" in capsys.readouterr().out
    assert call(monkeypatch, scripts.check_data, "fine", "--no-labels", "--output", "out", "--overwrite") == 0


def test_a_folder_of_links_is_written_beside_the_data(monkeypatch) -> None:
    (Path("pets") / "train" / "cat" / "bad.jpg").write_bytes(b"<html>")
    before = {path: path.read_bytes() for path in Path("pets").rglob("*") if path.is_file()}
    assert call(monkeypatch, scripts.check_data, "pets", "--no-labels", "--write-clean", "kept") == 0
    data = read_folder("kept", progress=False)
    assert (len(data.train), len(data.test)) == (12, 6)
    assert {path: path.read_bytes() for path in Path("pets").rglob("*") if path.is_file()} == before


def test_features_are_those_of_the_backend_in_the_order_of_the_samples() -> None:
    data = read_folder("pets", progress=False)
    samples = [*data.train, *data.test][::-1]
    spec = features.spec_for("torch", "distilled", "cpu", 2)
    found = features.compute(FakeBackend(), spec, samples, Silent())  # type: ignore[arg-type]
    assert found.shape == (18, 3)
    alone = features.compute(FakeBackend(), spec, samples[4:5], Silent())  # type: ignore[arg-type]
    np.testing.assert_allclose(found[4], alone[0], rtol=1e-6)
    assert np.ptp(found[:, 0]) > 0.01


@pytest.mark.slow
def test_features_come_from_the_environment_of_a_backend() -> None:
    if ready_python("torch") is None:
        pytest.skip("the environment of torch is not built")
    data = read_folder("pets", progress=False)
    spec = features.spec_for("torch", "distilled", "cpu", 1)
    found = steps.compute_features(spec, data.train)
    assert found.shape == (12, 512)
    np.testing.assert_allclose(steps.compute_features(spec, data.train[3:5]), found[3:5], rtol=1e-3, atol=1e-4)


UNHAPPY = [
    [], ["nowhere"], [""], ["x" * 300], ["~nobody-here/x"], ["text.txt"], ["broken.zip"], ["empty"], ["one-class"],
    ["all-bad"], ["flat-file-names"], ["pets", "stray"], ["pets", "--output", "text.txt"],
    ["pets", "--output", "text.txt/below"], ["pets", "--output", "done"], ["pets", "--output", "pets/runs"],
    ["pets", "--output", "pets"], ["pets", "--write-clean", "text.txt"], ["pets", "--write-clean", "there.csv"],
    ["pets", "--write-clean", "done"], ["pets", "--write-clean", "new.tsv"], ["pets", "--write-clean", "new.jsonl"],
    ["pets", "--write-clean", "pets/clean"], ["pets", "--write-clean", "text.txt/new.csv"],
    ["pets", "--write-clean", "out", "--output", "out"], ["pets", "--write-clean"], ["pets", "--output"],
    ["pets", "--min-side", "-1"], ["pets", "--min-side", "x"], ["pets", "--max-ratio", "0.5"],
    ["pets", "--max-ratio", "nan"], ["pets", "--max-ratio", "wide"], ["pets", "--workers", "0"],
    ["pets", "--workers", "100000"], ["pets", "--workers", "-3"], ["pets", "--backend", "theano"],
    ["pets", "--backend", ""], ["pets", "--weights", "none"], ["pets", "--weights", "nowhere.safetensors"],
    ["pets", "--weights", ""], ["pets", "--weights", "text.txt"], ["pets", "--weights", "x.pth"],
    ["pets", "--device", "tpu"], ["pets", "--labels", "maybe"], ["pets", "--unknown"], ["--no-labels"],
    ["pets", "--write-clean", "link"], ["several"],
]  # fmt: skip


def spoil() -> None:
    """Everything the unhappy arguments name."""
    Path("text.txt").write_text("mine")
    Path("there.csv").write_text("mine")
    Path("broken.zip").write_bytes(b"PK\x03\x04 and no more")
    Path("link").symlink_to("nowhere")
    for folder in ("empty", "one-class/train/a", "one-class/test/a", "flat-file-names", "done"):
        Path(folder).mkdir(parents=True)
    Path("done/check.json").write_text("{}")
    scene(0).save("flat-file-names/1.png")
    for split in ("train", "test"):
        scene(0).save(f"one-class/{split}/a/1.png")
    write_scenes(Path("several/one"), train=1, test=1)
    write_scenes(Path("several/two"), train=1, test=1)
    write_scenes(Path("all-bad"), train=1, test=1)
    for path in Path("all-bad").rglob("*.png"):
        path.write_bytes(b"")


@pytest.mark.parametrize("arguments", UNHAPPY, ids=" ".join)
def test_unhappy_input_is_explained_and_loses_nothing(monkeypatch, capsys, arguments) -> None:
    spoil()
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    monkeypatch.setattr(steps, "compute_features", by_class)
    assert call(monkeypatch, scripts.check_data, *arguments) == 2
    message = capsys.readouterr()
    told = message.err + message.out
    assert "Traceback" not in told
    assert len(told.strip()) > 20
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_failed_network_is_an_error_and_leaves_no_page(monkeypatch, capsys) -> None:
    monkeypatch.setattr(steps, "COMMAND", "check_data.nothing_of_this_name")
    assert call(monkeypatch, scripts.check_data, "pets", "--output", "out") == 1
    assert "--no-labels" in capsys.readouterr().err
    assert not Path("out").exists()


def test_what_is_planted_is_found_and_counted(monkeypatch, capsys) -> None:
    write_scenes(Path("many"), train=15, test=5)
    assert call(monkeypatch, plant, "many", "planted", "--copies", "2", "--wrong", "0.1") == 0
    truth = json.loads(Path("planted/planted.json").read_text())
    assert len(truth["wrong"]) == 4
    assert [entry["kind"] for entry in truth["copies"]] == [*planted.KINDS, *planted.KINDS]
    assert call(monkeypatch, scripts.check_data, "planted", "--no-labels", "--output", "out") == 0
    check = json.loads(Path("out/check.json").read_text())
    counted = scores.scores(truth, check)
    assert counted["duplicates, all"] == scores.Score(10, 10, 10)
    assert counted["duplicates between train and test"] == scores.Score(5, 5, 5)
    assert counted["wrong labels"] == scores.Score(4, 0, 0)
    assert call(monkeypatch, score, "planted", "out/check.json") == 0
    assert "1.00" in capsys.readouterr().out
    # A label that is wrong and one that is right, and a pair that is none.
    wrong = next(iter(truth["wrong"]))
    check["labels"]["suspects"] = [{"picture": wrong}, {"picture": truth["copies"][0]["source"]}]
    names = [truth["copies"][0]["source"], truth["copies"][1]["source"]]
    pair = {"first": names[0], "second": names[1]}
    check["duplicates"] = [{"pictures": names, "between_splits": False, "labels_differ": False, "pairs": [pair]}]
    counted = scores.scores(truth, check)
    assert counted["wrong labels"] == scores.Score(4, 2, 1)
    assert counted["duplicates, all"] == scores.Score(10, 1, 0)
    assert counted["duplicates, exact"].recall == 0


@pytest.mark.parametrize("name", ["", ".features", ".plant", ".score", ".__main__"])
def test_the_commands_start_in_a_bare_interpreter(name: str) -> None:
    root = Path(scripts.check_data.__file__).parents[2]
    # -S: without any installed package.
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import scripts.check_data{name}"
    subprocess.run([sys.executable, "-S", "-c", code], check=True)


def test_planting_is_seeded_and_changes_nothing(monkeypatch) -> None:
    before = {path: path.read_bytes() for path in Path("pets").rglob("*") if path.is_file()}
    for name, seed in (("one", "3"), ("again", "3"), ("other", "4")):
        assert call(monkeypatch, plant, "pets", name, "--copies", "1", "--seed", seed) == 0
    one, again, other = (json.loads(Path(name, "planted.json").read_text()) for name in ("one", "again", "other"))
    assert one == again
    assert one["copies"] != other["copies"]
    assert {path: path.read_bytes() for path in Path("pets").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("arguments", [["nowhere", "new"], ["pets", "pets"], ["pets", "new", "--wrong", "0.7"],
    ["pets", "new", "--copies", "99"], ["pets", "new", "--copies", "-1"], ["pets"]])  # fmt: skip
def test_planting_refuses_what_makes_no_sense(monkeypatch, capsys, arguments) -> None:
    assert call(monkeypatch, plant, *arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not Path("new").exists()


def test_scoring_refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    for name in ("nothing.json", "list.json"):
        with pytest.raises(UserError, match=name):
            scores.read(tmp_path / name)
