"""The report of some runs: its numbers, what it compares, and that names are only ever text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from common.contract.watch import Watch
from common.data.folder import ImageData
from common.report.collect import collect
from common.report.predictions import Share
from common.runs import record
from common.spec.experiment import ExperimentSpec
from tests.common.report.report_runs import Page, Runs, add_grid, built, made_up_data
from tests.fake_backend import FakeBackend
from tests.run_experiment import run_experiment


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def test_html_markdown_and_json_have_the_same_numbers(runs: Runs) -> None:
    add_grid(runs, ["torch", "jax"], [0, 1, 2])
    files = built(runs, command=["python3", "-m", "scripts.compare", "runs"])
    report = json.loads(files["json"])
    text = " ".join(Page(files["html"]).text.split())
    (group,) = report["data"]
    assert [(s["strategy"], s["series"], s["seeds"]) for s in group["series"]] == [
        (strategy, backend, [0, 1, 2]) for strategy in ("fine-tune", "scratch") for backend in ("torch", "jax")
    ]
    for series in group["series"]:
        values = [runs_accuracy(runs, series["strategy"], series["backend"], seed) for seed in series["seeds"]]
        assert series["accuracy"]["mean"] == pytest.approx(np.mean(values))
        assert series["accuracy"]["deviation"] == pytest.approx(np.std(values, ddof=1))
        shown = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
        assert shown in text
        assert shown in files["md"]
    for gain in group["advantages"]:
        shown = f"{100 * gain['difference']:+.1f}"
        assert shown in text
        assert shown in files["md"]
    for sentence in group["verdict"]:
        assert sentence in text
        assert sentence in files["md"]
    assert "python3 -m scripts.compare runs" in text


def runs_accuracy(runs: Runs, strategy: str, backend: str, seed: int) -> float:
    wanted = (strategy, backend, seed)
    (found,) = [r for r in runs.records.values() if (r.spec.strategy, r.spec.backend, r.spec.seed) == wanted]
    return found.final["test_accuracy"]


def test_equal_frameworks_and_a_clear_gain_are_said_in_words(runs: Runs) -> None:
    add_grid(runs, ["torch", "keras", "jax", "mxnet"], [0, 1, 2])
    (group,) = collect(runs.records).data
    assert group.verdict[0].startswith("Fine-tune reaches ")
    assert group.verdict[0].endswith("percentage points more than scratch in all four frameworks.")
    assert group.verdict[1] == "Fine-tune: all four frameworks predict the same class for every test image."
    assert group.verdict[2].startswith("Scratch: no two of the four frameworks differ beyond noise;")
    assert group.disagreements["fine-tune"].images_apart == 0
    assert "No prediction differs: on 40 photographs" in Page(built(runs)["html"]).text


def test_a_framework_that_is_better_with_every_seed_is_named(tmp_path: Path) -> None:
    runs = Runs(tmp_path, made_up_data(test=400))
    for seed in range(3):
        runs.add(runs.logits(2.5, seed), backend="torch", seed=seed)
        runs.add(runs.logits(0.8, seed, 1), backend="keras", seed=seed)
        runs.add(runs.logits(2.5, seed), backend="jax", seed=seed)
    (group,) = collect(runs.records).data
    readings = {(pair.first, pair.second): pair.reading for pair in group.pairs}
    assert readings == {("torch", "keras"): "apart", ("torch", "jax"): "noise", ("keras", "jax"): "apart"}
    assert "2 of 3 pairs differ beyond noise: torch over keras and jax over keras" in group.verdict[1]


def test_with_one_seed_the_networks_differ_and_the_frameworks_may_not(tmp_path: Path) -> None:
    runs = Runs(tmp_path, made_up_data(test=400))
    runs.add(runs.logits(2.5, 0), backend="torch")
    runs.add(runs.logits(0.8, 1), backend="keras")
    (group,) = collect(runs.records).data
    assert group.pairs[0].reading == "networks"
    assert any(sentence.startswith("That holds for these trained networks") for sentence in group.verdict)
    assert any("One seed" in sentence and "at least three" in sentence for sentence in group.verdict)
    files = built(runs)
    low, high = group.series[0].accuracy_interval
    assert f"one seed, {low:.3f} to {high:.3f}" in Page(files["html"]).text
    assert f"(one seed, {low:.3f} to {high:.3f})" in files["md"]


def test_strategies_of_which_the_same_holds_share_a_sentence(runs: Runs) -> None:
    for backend in ("torch", "jax"):
        for seed in range(2):
            for strategy, skill in (("fine-tune", 3.0), ("warm-up", 3.1), ("scratch", 0.0)):
                runs.add(runs.logits(skill, seed), backend=backend, strategy=strategy, seed=seed)
    (group,) = collect(runs.records).data
    assert len(group.verdict) == 3
    assert group.verdict[0].startswith("Fine-tune and warm-up reach ")
    assert group.verdict[0].endswith(" percentage points more than scratch in torch and jax.")
    assert group.verdict[1] == (
        "Fine-tune, scratch and warm-up: torch and jax predict the same class for every test image."
    )
    assert group.verdict[2].startswith("Two seeds: ")


def test_runs_as_experiments_leave_them(monkeypatch: pytest.MonkeyPatch, pictures: ImageData, tmp_path: Path) -> None:
    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    spec = ExperimentSpec(
        data=str(pictures.root), image_size=64, batch_size=8, epochs=1, learning_rate=0.0, workers=0, seed=2
    )
    runs = Runs(tmp_path / "runs")
    for backend in ("torch", "jax"):
        for strategy in ("fine-tune", "scratch"):
            folder = runs.folder / backend / strategy
            run_experiment(spec.replace(backend=backend, strategy=strategy), folder, Watch(), command=["python", "it"])
            runs.records[folder / record.RECORD] = record.read_record(folder)
    files = built(runs)
    (group,) = json.loads(files["json"])["data"]
    assert group["disagreements"]["fine-tune"]["images_apart"] == 0
    assert [run["predictions"] for run in json.loads(files["json"])["runs"]] == [None] * 4
    assert "<img" in files["html"]


def test_one_record_alone_makes_a_report(runs: Runs) -> None:
    runs.add()
    files = built(runs)
    assert "There is no other strategy to compare it with." in files["md"]
    assert "Nothing to compare: it takes two frameworks" in files["html"]
    assert json.loads(files["json"])["data"][0]["pairs"] == []


def test_a_framework_may_lack_a_strategy(runs: Runs) -> None:
    add_grid(runs, ["torch"], [0, 1])
    runs.add(backend="keras", strategy="feature-extraction")
    runs.add(backend="mxnet")
    files = built(runs)
    (group,) = json.loads(files["json"])["data"]
    assert [(gain["strategy"], gain["series"]) for gain in group["advantages"]] == [("fine-tune", "torch")]
    assert "No framework has complete runs of both feature-extraction and scratch." in group["verdict"]


def test_other_seeds_are_not_paired(runs: Runs) -> None:
    runs.add(seed=0, backend="torch")
    runs.add(seed=1, backend="jax")
    runs.add(seed=2, backend="torch", strategy="scratch")
    (group,) = collect(runs.records).data
    assert group.pairs == []
    assert group.advantages[0].reading == "unknown"
    assert any("no two series have predictions with the same seed" in sentence for sentence in group.verdict)


def test_settings_that_differ_are_no_seeds_of_one_experiment(runs: Runs) -> None:
    for seed in range(2):
        runs.add(seed=seed, learning_rate=1e-3)
        runs.add(seed=seed, learning_rate=1e-4, epochs=5)
        runs.add(seed=seed, backend="jax", learning_rate=1e-3, data="/elsewhere", workers=0)
    (group,) = collect(runs.records).data
    assert [series.series for series in group.series] == [
        "torch, epochs 3, learning rate 0.001", "torch, epochs 5, learning rate 0.0001", "jax",
    ]  # fmt: skip
    assert any("do not share epochs and learning rate" in sentence for sentence in group.verdict)
    assert "Among the runs of fine-tune, epochs is 3 in torch and jax, 5 in torch." in group.differences
    built(runs)


def test_a_repetition_is_no_further_seed(runs: Runs) -> None:
    first, second = runs.add(seed=4), runs.add(seed=4)
    report = collect(runs.records)
    (series,) = report.data[0].series
    assert series.seeds == [4]
    counted = {run.path: run.counted for run in report.runs}
    assert counted == {str(first): False, str(second): True}
    assert any("only the newest counts" in note for note in report.notes)


def test_other_data_is_kept_apart(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    runs.add(backend="torch")
    other = Runs(tmp_path / "other", made_up_data(("pizza", "pasta", "soup"), name="dinner"))
    other.add(backend="jax")
    runs.records.update(other.records)
    report = collect(runs.records)
    assert [group.names for group in report.data] == [["photos"], ["dinner"]]
    assert all(group.pairs == [] for group in report.data)
    assert "two different sets of images or classes" in report.notes[0]
    page = built(runs)["html"]
    assert 'id="data-1"' in page
    assert 'id="data-2"' in page


def test_runs_that_ended_early_are_listed_with_their_reason(runs: Runs) -> None:
    runs.add()
    ended = [runs.add(status=status, seed=9) for status in ("diverged", "failed", "interrupted", "running")]
    files = built(runs, failures={"mxnet scratch 0": "no environment | `x`\nsecond line"})
    report = json.loads(files["json"])
    assert report["data"][0]["series"][0]["seeds"] == [0]
    assert "1 diverged, 1 failed, 1 interrupted, 1 running and 1 without a record of 6 runs" in report["notes"][0]
    text = Page(files["html"]).text
    for path in ended:
        assert str(path) in text
    assert "Stopped: diverged at step 7" in text
    assert "no environment | `x`\nsecond line" in text
    assert r"no environment \| \`x\` second line" in files["md"]


def test_a_report_of_nothing_but_failures(runs: Runs) -> None:
    runs.add(status="failed")
    assert "No run on this data is complete" in built(runs)["md"]


def test_no_records_at_all_is_a_report_too(runs: Runs) -> None:
    files = built(runs, failures={"torch fine-tune 0": "out of memory"})
    assert "out of memory" in files["html"]
    assert "out of memory" in files["md"]


def test_zero_epochs_have_results_but_no_curves(runs: Runs) -> None:
    runs.add(epochs=0)
    files = built(runs)
    assert json.loads(files["json"])["data"][0]["series"][0]["curves"] is None
    assert "so there are no curves" in files["html"]


def spoil(path: Path, **arrays: Any) -> None:
    file = path.parent / record.PREDICTIONS
    with np.load(file) as stored:
        values = {name: stored[name] for name in stored.files}
    np.savez(file, **{**values, **arrays})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda path: (path.parent / record.PREDICTIONS).unlink(), "there is no predictions.npz"),
        (lambda path: (path.parent / record.PREDICTIONS).write_bytes(b"PK\3\4 broken"), "cannot be read"),
        (lambda path: spoil(path, logits=np.full((40, 2), np.nan)), "not finite"),
        (lambda path: spoil(path, logits=np.zeros((39, 2))), "do not fit together"),
        (lambda path: spoil(path, classes=np.array(["a", "b"])), "of other classes"),
        (lambda path: spoil(path, labels=np.full(40, 7)), "labels that are no class"),
        (lambda path: spoil(path, logits=np.eye(2)[[0] * 20 + [1] * 20]), "not of this record"),
        (lambda path: spoil(path, names=np.array([f"{i}" for i in range(40)])), "others than those of most runs"),
        (lambda path: spoil(path, names=np.array([{}], dtype=object)), "cannot be read"),
    ],
)
def test_predictions_that_cannot_be_used_are_said_and_left_out(runs: Runs, fault: Any, said: str) -> None:
    for backend in ("torch", "keras", "jax"):
        path = runs.add(backend=backend)
    fault(path)
    report = collect(runs.records)
    (group,) = report.data
    assert len(group.pairs) == 1
    assert any(said in note for note in report.notes)
    assert [series.series for series in group.series] == ["torch", "keras", "jax"]
    built(runs)


def test_numbers_that_are_not_finite_are_unknown(runs: Runs) -> None:
    path, other = runs.add(), runs.add(seed=1)
    runs.records[path].final = {"test_loss": float("nan"), "test_accuracy": float("nan")}
    runs.records[other].timing["images_per_second"] = float("inf")
    report = json.loads(built(runs)["json"], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [run["counted"] for run in report["runs"]] == [False, True]
    assert report["runs"][0]["test_accuracy"] is None
    assert report["runs"][1]["images_per_second"] is None


def test_disagreements_are_counted_and_sorted(runs: Runs) -> None:
    logits = runs.logits(3.0, 0)
    other = logits.copy()
    other[3] = other[3][::-1] * 3
    other[30] = [0.2, 0.1]
    runs.add(logits, backend="torch")
    runs.add(other, backend="jax")
    found = collect(runs.records).data[0].disagreements["fine-tune"]
    apart = np.flatnonzero(logits.argmax(1) != other.argmax(1))
    assert found.images_apart == len(apart) == 2
    assert [card.name for card in found.shown] == ["test/hotdog/0003.jpg", "test/not-hotdog/0030.jpg"]
    probability = 1 / (1 + np.exp(float(logits[3, 1]) - float(logits[3, 0])))
    assert found.shown[0].answers[0].true_probability == pytest.approx(probability)
    assert found.shown[0].spread <= found.largest_gap


def test_mistakes_say_who_shares_them(runs: Runs) -> None:
    right = np.eye(2)[[0] * 20 + [1] * 20] * 4
    wrong = right.copy()
    wrong[5] = [0, 9]
    runs.add(wrong, backend="torch", seed=0)
    runs.add(wrong * 0.5, backend="jax", seed=0)
    runs.add(right, backend="jax", seed=1)
    found = collect(runs.records).data[0].mistakes["fine-tune"]
    assert (found.images_wrong, found.images_wrong_in_all) == (1, 0)
    (card,) = found.shown
    assert (card.label, card.top1, card.series) == (0, 1, "torch")
    assert card.shared == [Share("torch", [0], 1), Share("jax", [0], 2)]


@pytest.mark.parametrize("count", [2, 5, 20])
def test_confusion_matrices_of_many_classes(tmp_path: Path, count: int) -> None:
    runs = Runs(tmp_path / "runs", made_up_data([f"class {index:02d}" for index in range(count)], test=3 * count))
    logits = runs.logits(1.0, 0)
    # A class that is never predicted has no precision.
    logits[:, -1] = -9
    runs.add(logits)
    (series,) = collect(runs.records).data[0].series
    matrix = np.array(series.confusion.matrix)
    assert matrix.sum() == 3 * count
    assert np.trace(matrix) / matrix.sum() == pytest.approx(series.accuracy.mean)
    files = built(runs)
    assert json.loads(files["json"])["data"][0]["series"][0]["confusion"]["precision"][-1] is None
    assert files["html"].count('class="right"') == count
