"""Sweeps as a user meets them: what is varied, chosen, continued and shown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import backends
import scripts.sweep
from common.contract.results import EpochMetrics, History, Predictions
from common.network import resnet
from common.runs.record import read_record
from common.sweep import study as studies
from common.sweep.study import Study
from common.training import loop
from scripts.cli import command, options
from scripts.cli.arguments import parse_strategies
from scripts.environments import definitions
from tests.fake_backend import FakeBackend

ROOT = Path(scripts.sweep.__file__).parents[2]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NumPy in the place of the frameworks, in this process and in an empty working folder; no process for pictures."""
    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    # Of its network it uses the head only; the rest takes a second to draw.
    monkeypatch.setattr(resnet, "initial_network", resnet.initial_head)
    monkeypatch.setattr(command, "hand_over", lambda *arguments: None)
    monkeypatch.setattr(definitions, "ready_python", lambda name: None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command.start("sweep", scripts.sweep.main)
    return int(ended.value.code or 0)


@pytest.fixture
def small(pictures) -> list[str]:
    return [
        "--preset", "demo", "--data", str(pictures.root), "--image-size", "64", "--batch-size", "8", "--epochs", "2",
        "--workers", "0", "--study", "s.journal",
    ]  # fmt: skip


def results() -> list[studies.Result]:
    return Study(Path("s.journal")).results()


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--vary", "seed=1,2", "seed=3,4"], ["--vary", "epochs=1,-1"], ["--vary", "model=resnet18,resnet18_v2"],
        ["--vary", "seed=1,2", "--trials", "0"],
        ["--vary", "seed=1,2", "--sampler", "best"], ["--vary", "seed=1,2", "--data", "nowhere"],
        ["--vary", "seed=1,2", "--weights", "nowhere"], ["--vary", "seed=1,2", "--validation", "0.01"],
        ["--vary", "seed=1,2", "--study", "text.txt"], ["--vary", "seed=1,2", "--study", "text.txt/below"],
        ["--vary", "seed=1,2", "--devices", "2"], ["--vary", "batch_size=8..0"], ["--vary", "devices=1,2"],
        ["--vary", "batch_size=8..32", "--backend", "mxnet", "--devices", "2", "--sampler", "random"],
        ["--show", "nowhere.journal"], ["--show", "text.txt"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_unhappy_input_is_explained(monkeypatch, capsys, small, arguments) -> None:
    Path("text.txt").write_text("mine\n")
    assert call(monkeypatch, *small, *arguments) == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err + told.out
    assert len(told.err + told.out) > 30
    assert Path("text.txt").read_text() == "mine\n"
    assert [path.name for path in Path().iterdir()] == ["text.txt"]


# Trials


def test_a_grid_runs_every_combination_once(monkeypatch, capsys, small) -> None:
    arguments = [*small, "--vary", "learning_rate=0.001,0.01", "head_multiple=1,10"]
    assert call(monkeypatch, *arguments) == 0
    combinations = [(0.001, 1.0), (0.001, 10.0), (0.01, 1.0), (0.01, 10.0)]
    assert [tuple(result.values.values()) for result in results()] == combinations
    for result, (rate, multiple) in zip(results(), combinations, strict=True):
        record = read_record(Path("s") / f"{result.number:04d}")
        assert record.status == "complete"
        assert (record.spec.learning_rate, record.spec.head_multiple) == (rate, multiple)
        assert record.spec.validation == 0.2
        assert record.command[:3] == ["python", "-m", "scripts.sweep"]
        assert result.outcome == "complete"
        assert result.epochs == 2
        assert result.accuracy == record.epochs[-1].validation_accuracy
        assert not (Path("s") / f"{result.number:04d}" / "model.safetensors").exists()
    assert not list(Path("s").glob("0*.lock"))
    printed = capsys.readouterr().out
    assert "python -m scripts.run --preset demo" in printed
    assert call(monkeypatch, *arguments) == 0
    assert len(results()) == 4


class FixedAccuracy:
    """Stands for the predictions of validation images."""

    loss = 0.5

    def __init__(self, accuracy: float) -> None:
        self.accuracy = accuracy


def test_the_choice_does_not_see_the_test_images(monkeypatch, small) -> None:
    """The trial that is best on the held-out images is chosen, though it is the worst on the test images."""
    accuracies = iter([0.2, 0.9, 0.4])

    def fit_with(experiment, model, limit) -> History:
        accuracy = next(accuracies)
        metrics = EpochMetrics(1, "everything", 0.1, 0.5, 0.1, 1 - accuracy, 1.0, 1.0, validation_accuracy=accuracy)
        predictions = Predictions(np.eye(2, dtype=np.float32), np.array([0, 1]))
        experiment.watch.on_epoch(metrics, predictions)
        return History([metrics], test=predictions, validation=FixedAccuracy(accuracy))

    monkeypatch.setattr(loop, "fit", fit_with)
    assert call(monkeypatch, *small, "--vary", "seed=0,1,2") == 0
    assert [result.accuracy for result in results()] == [0.2, 0.9, 0.4]
    assert Study(Path("s.journal")).best().number == 1


def test_the_command_of_the_best_repeats_it(monkeypatch, capsys, small) -> None:
    assert call(monkeypatch, *small, "--vary", "head_multiple=1,20", "strategy=scratch,fine-tune") == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("python -m scripts.run ")]
    (run,) = parse_strategies(options.RunOptions, "run", line.split()[3:])
    best = Study(Path("s.journal")).best()
    record = read_record(Path("s") / f"{best.number:04d}")
    assert run.spec.replace(validation=record.spec.validation) == record.spec


def test_each_strategy_keeps_its_rates_of_the_preset(monkeypatch, small) -> None:
    assert call(monkeypatch, *small, "--vary", "strategy=fine-tune,scratch", "--strategy", "partial") == 0
    specs = [read_record(Path("s") / f"{result.number:04d}").spec for result in results()]
    assert [(spec.strategy, spec.learning_rate) for spec in specs] == [("fine-tune", 2e-4), ("scratch", 1e-3)]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_stay_in_the_range_and_repeat(monkeypatch, small, sampler) -> None:
    drawn = []
    for file in ("a.journal", "b.journal"):
        ranges = ["--vary", "learning_rate=1e-4..1e-2:log", "partial_stages=1..4", "--sampler", sampler]
        assert call(monkeypatch, *small, "--epochs", "1", *ranges, "--study", file, "--trials", "3") == 0
        drawn.append([result.values for result in Study(Path(file)).results()])
    assert drawn[0] == drawn[1]
    assert len({values["learning_rate"] for values in drawn[0]}) == 3
    assert all(
        1e-4 <= values["learning_rate"] <= 1e-2 and values["partial_stages"] in range(1, 5) for values in drawn[0]
    )


def test_more_trials_continue_a_study(monkeypatch, small) -> None:
    arguments = [*small, "--vary", "learning_rate=1e-4..1e-2:log", "--epochs", "1"]
    for trials in (1, 3, 2):
        assert call(monkeypatch, *arguments, "--trials", str(trials)) == 0
    assert len(results()) == 3


def test_a_diverged_trial_is_a_result(monkeypatch, capsys, small) -> None:
    arguments = [*small, "--vary", "learning_rate=0.01,1e300"]
    assert call(monkeypatch, *arguments) == 0
    fine, diverged = results()
    assert (fine.outcome, diverged.outcome) == ("complete", "diverged")
    assert diverged.accuracy is None
    assert "--learning-rate" in diverged.reason
    assert read_record(Path("s/0001")).status == "diverged"
    assert "1e+300: diverged" in capsys.readouterr().out
    assert call(monkeypatch, *arguments) == 0
    assert len(results()) == 2


def test_unpromising_trials_are_pruned(monkeypatch, small) -> None:
    """After five complete trials one below their median ends after its second epoch."""
    see = loop.epoch_metrics

    def fixed(*arguments):
        return replace(see(*arguments), validation_accuracy=0.1 if len(results()) == 6 else 0.9)

    monkeypatch.setattr(loop, "epoch_metrics", fixed)
    arguments = ["--vary", "seed=0,1,2,3,4,5", "--epochs", "3", "--pruner", "median"]
    assert call(monkeypatch, *small, *arguments) == 0
    assert [result.outcome for result in results()] == ["complete"] * 5 + ["pruned"]
    assert results()[-1].epochs == 2
    record = read_record(Path("s/0005"))
    assert record.status == "interrupted"
    assert "pruned" in record.error
    assert len(record.epochs) == 2


def test_ctrl_c_leaves_a_study_that_continues(monkeypatch, capsys, small) -> None:
    whole, calls = loop.train_epoch, []

    def interrupt_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(loop, "train_epoch", interrupt_third)
    arguments = [*small, "--vary", "seed=0,1,2"]
    assert call(monkeypatch, *arguments) == 130
    assert [result.outcome for result in results()] == ["complete", "interrupted"]
    assert call(monkeypatch, *arguments) == 0
    assert [result.outcome for result in results()] == ["complete", "interrupted", "complete", "complete"]
    assert [result.values["seed"] for result in results()] == [0, 1, 1, 2]


def test_an_error_ends_the_sweep_and_its_point_is_tried_again(monkeypatch, small) -> None:
    def fail(*arguments):
        raise MemoryError("no memory left")

    with monkeypatch.context() as broken:
        broken.setattr(loop, "train_epoch", fail)
        broken.setattr(sys, "argv", ["command", *small, "--vary", "seed=0,1"])
        with pytest.raises(MemoryError):
            command.start("sweep", scripts.sweep.main)
    assert [(result.outcome, result.reason) for result in results()] == [("failed", "MemoryError: no memory left")]
    assert call(monkeypatch, *small, "--vary", "seed=0,1") == 0
    assert [result.values["seed"] for result in results() if result.outcome == "complete"] == [0, 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [(["--vary", "seed=0,1,2"], "varies seed"), (["--vary", "seed=0,1", "--batch-size", "4"], "batch_size = 8, not 4")],
)
def test_a_study_of_another_sweep_is_refused(monkeypatch, capsys, small, changed, message) -> None:
    assert call(monkeypatch, *small, "--vary", "seed=0,1") == 0
    assert call(monkeypatch, *small, *changed) == 2
    assert message in capsys.readouterr().err
    assert len(results()) == 2


def test_backends_share_a_study(monkeypatch, small) -> None:
    for backend, trials, devices in (("torch", "1", "1"), ("mxnet", "3", "2")):
        varied = ["--vary", "seed=0,1", "--backend", backend, "--trials", trials, "--devices", devices]
        assert call(monkeypatch, *small, *varied) == 0
    assert [(result.backend, result.values["seed"]) for result in results()] == [("torch", 0), ("mxnet", 1)]


WORKER = """
import sys, time
import backends
from common.network import resnet
from common.training import loop
from tests.fake_backend import FakeBackend
backends.load = lambda name: FakeBackend()
resnet.initial_network = resnet.initial_head
whole = loop.train_epoch
def slow(*arguments):
    time.sleep(float(sys.argv[1]))
    return whole(*arguments)
loop.train_epoch = slow
from scripts import sweep
from scripts.environments import definitions
definitions.ready_python = lambda name: None
sys.exit(sweep.main(sys.argv[2:]))
"""


def start_worker(pause: float, *arguments: str) -> subprocess.Popen[bytes]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(pause), *arguments], env=variables, stdout=subprocess.PIPE
    )


def test_processes_share_a_grid_and_repeat_nothing(small) -> None:
    seeds = "seed=" + ",".join(map(str, range(8)))
    workers = [start_worker(0.05, *small, "--vary", seeds, "--epochs", "1") for _ in range(3)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    assert sorted(result.values["seed"] for result in results()) == list(range(8))
    assert {result.outcome for result in results()} == {"complete"}


def test_the_point_of_a_killed_process_is_tried_again(monkeypatch, small) -> None:
    worker = start_worker(60, *small, "--vary", "seed=0,1", "--epochs", "1")
    deadline = time.monotonic() + 60
    while not list(Path().glob("s/*/record.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [result.outcome for result in results()] == ["running"]
    worker.kill()
    worker.wait()
    assert call(monkeypatch, *small, "--vary", "seed=0,1", "--epochs", "1") == 0
    assert [(result.values["seed"], result.outcome) for result in results()] == [
        (0, "failed"), (0, "complete"), (1, "complete"),
    ]  # fmt: skip
    assert "process" in results()[0].reason


# Showing


@pytest.mark.parametrize(
    "varied",
    [
        ["learning_rate=0.001,0.01,1e100"],
        ["strategy=fine-tune,feature-extraction"],
        ["learning_rate=0.01,1e300", "head_multiple=1,10"],
        ["learning_rate=1e-4..1e-2:log", "head_multiple=1..10", "--trials", "3"],
        ["learning_rate=0.01,1e100", "seed=0,1", "flip=true,false", "--trials", "5"],
    ],
    ids=len,
)
def test_a_study_is_shown_as_table_and_picture(monkeypatch, capsys, small, varied) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    assert call(monkeypatch, *small, "--epochs", "1", "--vary", *varied) == 0
    capsys.readouterr()
    assert call(monkeypatch, "--show", "s.journal") == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "s.png" in printed
    with Image.open("s.png") as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_the_picture_marks_what_diverged(monkeypatch, small) -> None:
    pytest.importorskip("matplotlib")
    from common.sweep import plot

    assert call(monkeypatch, *small, "--epochs", "1", "--vary", "learning_rate=0.001,0.01,1e100") == 0
    study = Study(Path("s.journal"))
    (axes,) = plot.draw(study.results(), study.variables).axes
    places = {points.get_label(): points.get_offsets().tolist() for points in axes.collections}
    assert [x for x, _ in places["complete"]] == [0.001, 0.01]
    assert [y for _, y in places["complete"]] == [result.accuracy for result in study.results()[:2]]
    assert [x for x, _ in places["diverged"]] == [1e100]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] < 0.001
    assert axes.get_xlim()[1] > 1e100


def test_help_names_the_grammar(monkeypatch, capsys) -> None:
    assert call(monkeypatch, "--help") == 0
    assert "learning_rate=1e-5..1e-1:log" in capsys.readouterr().out.replace("\n", "")


def test_showing_needs_the_tools(monkeypatch) -> None:
    assert scripts.sweep.environment_wanted(["--show", "x.journal"]) is None
    assert scripts.sweep.environment_wanted(["--vary", "seed=1,2", "--backend", "jax"]) == "jax"
