"""`scripts.run` on several devices of a framework that takes a process for each, from its start to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.contract.watch import Silent
from common.data.folder import ImageData
from tests.parallel_process import SECONDS, small_spec
from tests.run_experiment import run_experiment

ROOT = Path(__file__).resolve().parent.parent.parent
CHANGES = {"learning_rate": 1e-3, "loss_reduction": "mean", "epochs": 2}


@pytest.fixture(autouse=True)
def only_torch(backend_name: str) -> None:
    if backend_name != "torch":
        pytest.skip("one process drives all devices of a machine")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(own) for own, parent, state in rows if int(parent) == pid and not state.startswith("Z")]


def start(pictures: ImageData, folder: Path, **changes: Any) -> subprocess.Popen[str]:
    """`scripts.run` on two devices."""
    values = {
        "data": pictures.root, "image_size": 72, "resize_size": 80, "batch_size": 8, "device": "cpu", "workers": 0,
        "strategy": "fine-tune", "devices": 2, "output": folder, **CHANGES, **changes,
    }  # fmt: skip
    options = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-P", "-m", "scripts.run", "--backend", "torch", "--preset", "demo"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command += ["--no-image-cache", *options]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes)


def record_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def test_a_run_starts_its_processes_and_leaves_one_record(pictures, tmp_path) -> None:
    run = start(pictures, tmp_path / "two")
    out, err = run.communicate(timeout=SECONDS)
    assert (run.returncode, err) == (0, "")
    assert out.count("epoch 1,") == out.count("record: ") == 1
    two = record_in(tmp_path / "two")
    assert (two["status"], two["resolved"]["devices"], two["resolved"]["processes"]) == ("complete", 2, 2)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "model.safetensors", "predictions.npz", "record.json",
    ]  # fmt: skip
    spec = small_spec(data=str(pictures.root), **CHANGES)
    one = run_experiment(spec, tmp_path / "one", Silent())
    for epoch, expected in zip(two["epochs"], one.epochs, strict=True):
        # See tests/backends/test_parallel.py.
        assert epoch["loss"] == pytest.approx(expected.loss, rel=2e-5)
        assert epoch["test_loss"] == pytest.approx(expected.test_loss, rel=2e-5)
        assert epoch["test_accuracy"] == expected.test_accuracy


def test_a_mistake_that_every_process_sees_is_said_once(pictures, tmp_path) -> None:
    run = start(pictures, tmp_path / "out", data=tmp_path / "nowhere")
    _, err = run.communicate(timeout=SECONDS)
    assert run.returncode == 2
    assert err.startswith("error: There is no ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_divergence_is_said_once_and_recorded(pictures, tmp_path) -> None:
    run = start(pictures, tmp_path, learning_rate=1e9)
    _, err = run.communicate(timeout=SECONDS)
    assert run.returncode == 1
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert record_in(tmp_path)["status"] == "diverged"


def test_ctrl_c_ends_all_processes_and_is_recorded(pictures, tmp_path) -> None:
    run = start(pictures, tmp_path, epochs=1000)
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("epoch 1,"):
            break
    workers = children(run.pid)
    assert len(workers) == 2
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=SECONDS)
    assert (run.returncode, err.strip()) == (130, "Interrupted.")
    assert record_in(tmp_path)["status"] == "interrupted"
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
