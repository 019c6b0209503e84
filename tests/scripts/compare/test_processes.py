"""Running a comparison: one process a run, with a NumPy backend in the place of the frameworks."""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import scripts.compare
from common.data.folder import ImageData
from common.runs.record import read_record
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from scripts.cli import sharing
from scripts.cli.arguments import options_of, parse, parse_strategies
from scripts.cli.options import CompareOptions, RunOptions
from scripts.compare import processes
from scripts.compare.plan import Run, plan_runs
from scripts.compare.processes import Comparison
from scripts.environments import definitions, use

FAKE_RUN = (sys.executable, "-P", "-m", "tests.fake_run")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes that need no framework, in an empty working folder; every environment is ready."""
    monkeypatch.setattr(processes, "RUN_COMMAND", FAKE_RUN)
    monkeypatch.setattr(definitions, "ready_python", lambda name, cuda=None: Path(sys.executable))
    monkeypatch.chdir(tmp_path)


def arguments_for(data: ImageData, *more: str) -> list[str]:
    small = ["--data", str(data.root), "--image-size", "64", "--batch-size", "8", "--epochs", "1", "--workers", "0"]
    return [*small, "--output", "out", *more]


def plan(arguments: list[str]) -> list[Run]:
    options = parse_strategies(CompareOptions, "compare", arguments)[0]
    return plan_runs(options, options.seeds or 3, arguments)


def test_every_backend_strategy_and_seed_is_run_and_reported(pictures, capsys) -> None:
    arguments = arguments_for(pictures, "--backends", "torch,jax", "--seeds", "2", "--jobs", "2", "--tensorboard")
    assert scripts.compare.main(arguments) == 0
    found = {
        (record.spec.backend, record.spec.strategy, record.spec.seed)
        for record in map(read_record, Path("out").rglob("record.json"))
    }
    assert found == {(b, s, seed) for b in ("torch", "jax") for s in ("fine-tune", "scratch") for seed in (0, 1)}
    assert json.loads(Path("out/report.json").read_text())
    assert "<html" in Path("out/report.html").read_text()
    assert Path("out/report.md").exists()
    assert list(Path("out/torch/scratch-seed1/tensorboard").iterdir())
    printed = capsys.readouterr().out
    assert "[8/8]" in printed
    assert "report.html" in printed


def test_complete_runs_are_skipped_and_others_repeated(pictures, capsys) -> None:
    arguments = arguments_for(pictures, "--backends", "torch", "--seeds", "1")
    assert scripts.compare.main(arguments) == 0
    kept, repeated = (Path("out/torch") / name / "record.json" for name in ("fine-tune-seed0", "scratch-seed0"))
    before = kept.stat().st_mtime_ns
    repeated.write_text(repeated.read_text().replace('"status": "complete"', '"status": "interrupted"'))
    assert scripts.compare.main(arguments) == 0
    assert kept.stat().st_mtime_ns == before
    assert read_record(repeated).status == "complete"
    assert "2 runs, 1 of them complete already" in capsys.readouterr().out


def test_other_runs_in_the_folder_are_not_replaced(pictures) -> None:
    arguments = arguments_for(pictures, "--backends", "torch", "--seeds", "1", "--strategy", "scratch")
    assert scripts.compare.main(arguments) == 0
    with pytest.raises(UserError, match=r"other learning_rate.*--overwrite"):
        scripts.compare.main([*arguments, "--learning-rate", "0.5"])
    assert scripts.compare.main([*arguments, "--learning-rate", "0.5", "--overwrite"]) == 0
    assert read_record(Path("out/torch/scratch-seed0")).spec.learning_rate == 0.5


def test_a_failed_run_is_shown_and_the_others_go_on(pictures, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys\n"
        "if 'jax' in sys.argv: sys.exit('error: no such thing')\n"
        "import runpy; runpy.run_module('tests.fake_run', run_name='__main__', alter_sys=True)"
    )
    monkeypatch.setattr(processes, "RUN_COMMAND", (sys.executable, "-c", program))
    arguments = arguments_for(pictures, "--backends", "jax", "mxnet", "--seeds", "1", "--strategy", "scratch")
    assert scripts.compare.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "jax scratch, seed 0: no such thing" in printed
    assert "log.txt" in printed
    assert Path("out/jax/scratch-seed0/log.txt").read_text() == "error: no such thing\n"
    assert read_record(Path("out/mxnet/scratch-seed0")).status == "complete"
    assert "no such thing" in Path("out/report.html").read_text()


def test_a_missing_environment_is_built_and_one_that_cannot_be_fails_its_runs(pictures, monkeypatch) -> None:
    ready = {"torch"}
    built = []

    def ensure(name: str) -> None:
        built.append(name)
        if name == "mxnet":
            raise definitions.InterpreterMissing("no Python 3.11 here")
        time.sleep(0.2)
        ready.add(name)

    monkeypatch.setattr(definitions, "ready_python", lambda name, cuda=None: sys.executable if name in ready else None)
    monkeypatch.setattr(use, "ensure", ensure)
    runs = plan(arguments_for(pictures, "--seeds", "1", "--strategy", "scratch"))
    said = []
    Comparison(runs, 2, lambda run, text: said.append((run.spec.backend, text))).work()
    assert built == ["mxnet", "jax", "keras"]
    assert {run.spec.backend: run.state for run in runs} == {
        "torch": "done", "keras": "done", "jax": "done", "mxnet": "failed",
    }  # fmt: skip
    assert ("mxnet", "no Python 3.11 here") in said
    assert ("jax", "building the environment") in said


def test_an_interrupted_comparison_ends_its_processes(pictures) -> None:
    runs = plan(arguments_for(pictures, "--seeds", "1", "--epochs", "5000", "--backends", "torch"))
    interrupted = threading.Event()

    def on_change(run: Run, text: str) -> None:
        if run.steps_done and not interrupted.is_set():
            interrupted.set()
            _thread.interrupt_main()

    comparison = Comparison(runs, 1, on_change)
    with pytest.raises(KeyboardInterrupt):
        comparison.work()
    assert read_record(runs[0].folder).status == "interrupted"
    assert not runs[1].folder.exists()


def test_ctrl_c_on_a_terminal_marks_every_record(pictures) -> None:
    """The terminal tells the whole process group, and the comparison tells its processes once more."""
    program = (
        "import sys\nfrom pathlib import Path\n"
        "import scripts.compare\nfrom scripts.cli import command\nfrom scripts.compare import processes\n"
        "from scripts.environments import definitions\n"
        f"processes.RUN_COMMAND = {FAKE_RUN!r}\n"
        "definitions.ready_python = lambda name, cuda=None: Path(sys.executable)\n"
        "command.hand_over = lambda *arguments: None\n"
        "command.start('compare', scripts.compare.main)"
    )
    arguments = arguments_for(pictures, "--epochs", "5000", "--backends", "torch,jax", "--strategy", "scratch")
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], env=use.project_variables(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    records = [Path(f"out/{backend}/scratch-seed0/record.json") for backend in ("torch", "jax")]
    while process.poll() is None and not all(path.exists() and read_record(path).epochs for path in records):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert [read_record(path).status for path in records] == ["interrupted", "interrupted"]


def test_an_early_failure_is_not_taken_for_an_earlier_run(pictures, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    arguments = arguments_for(pictures, "--backends", "torch", "--seeds", "1", "--strategy", "scratch")
    assert scripts.compare.main(arguments) == 0
    program = "import sys\nprint('scratch: torch')\nsys.exit('error: no GPU')"
    monkeypatch.setattr(processes, "RUN_COMMAND", (sys.executable, "-c", program))
    assert scripts.compare.main([*arguments, "--overwrite"]) == 1
    assert "torch scratch, seed 0: no GPU" in capsys.readouterr().out
    assert not Path("out/torch/scratch-seed0/record.json").exists()


def test_a_folder_that_cannot_be_made_ends_it_before_anything_runs(pictures) -> None:
    Path("out").mkdir()
    Path("out/torch").touch()
    with pytest.raises(UserError, match="torch is no folder"):
        scripts.compare.main(arguments_for(pictures, "--backends", "torch", "jax"))


def test_a_build_that_breaks_ends_its_runs(pictures, monkeypatch) -> None:
    monkeypatch.setattr(definitions, "ready_python", lambda name, cuda=None: None)
    monkeypatch.setattr(use, "ensure", lambda name: 1 / 0)
    runs = plan(arguments_for(pictures, "--seeds", "1", "--backends", "torch"))
    Comparison(runs, 1, lambda run, text: None).work()
    assert [run.error for run in runs] == ["division by zero"] * 2


def test_backends_without_the_model_are_left_out(pictures) -> None:
    arguments = scripts.compare.with_backend(arguments_for(pictures, "--model", "resnet18_v2", "--weights", "none"))
    assert [run.spec.backend for run in plan(arguments)] == ["mxnet"] * 3


def test_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4}, raising=False)
    assert [sharing.cores_of(job, 2) for job in range(2)] == [{0, 2, 4}, {1, 3}]
    assert sharing.cores_of(0, 1) == {0, 1, 2, 3, 4}
    assert sharing.cores_of(6, 8) == {1}


def test_jobs_share_the_gpus(pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    runs = plan(arguments_for(pictures, "--seeds", "1"))
    of_jobs = [Comparison(runs, 3, print).variables(job)["CUDA_VISIBLE_DEVICES"] for job in range(3)]
    assert of_jobs == ["3", "5", "3"]
    assert Comparison(runs, 1, print).variables(0)["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_a_run_on_several_devices_gets_as_many_gpus(pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3,5,7,9")
    runs = plan(arguments_for(pictures, "--seeds", "1", "--devices", "2"))
    of_jobs = [Comparison(runs, 3, print).variables(job)["CUDA_VISIBLE_DEVICES"] for job in range(3)]
    assert of_jobs == ["1,3", "5,7", "1,3"]
    assert sharing.gpus_of(0, ["1"], 2) == ["1"]


def test_without_a_number_of_jobs_there_is_one_a_gpu_or_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert sharing.default_jobs(1) == 3
    assert sharing.default_jobs(2) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert sharing.default_jobs(1) == 2
    assert sharing.default_jobs(4) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backends", "torhc"], "the backends are torch, keras"),
        (["--model", "resnet50", "--backends", "torch,mxnet"], "not offered by mxnet; choose --backends torch keras"),
        (["--backend", "jax"], "--backends"),
        (["--crosscheck", "nowhere.json"], "no such crosscheck"),
        (["--seeds", "0"], "at least 1"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_end_it_before_anything_runs(pictures, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        scripts.compare.main(arguments_for(pictures, *more))
    assert not list(Path().rglob("record.json"))


def test_arguments_give_the_spec_back() -> None:
    spec = ExperimentSpec(
        backend="jax", strategy="scratch", seed=7, learning_rate=1e-7, flip=False, train_limit=20, head_multiple=2.5
    )
    spec = spec.replace(stage_multiples=type(spec.stage_multiples)(stem=0.0, layer4=0.5))
    for preset in ("demo", "d2l"):
        assert parse(RunOptions, "run", options_of(spec, preset, always=["seed"]), "scratch").spec == spec
