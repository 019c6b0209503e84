"""Records side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import backends
import scripts.compare
from common.contract.watch import Watch
from common.runs.predictions import agreement
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from tests.fake_backend import FakeBackend
from tests.run_experiment import run_experiment


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, pictures, tmp_path: Path) -> Path:
    """A run, the same once more under another backend's name, and one of another learning rate."""
    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    monkeypatch.chdir(tmp_path)
    spec = ExperimentSpec(data=str(pictures.root), image_size=64, batch_size=8, epochs=1, learning_rate=0.01, workers=0)
    run_experiment(spec, tmp_path / "runs" / "a", Watch())
    run_experiment(spec.replace(backend="jax"), tmp_path / "runs" / "b", Watch())
    run_experiment(spec.replace(backend="mxnet", learning_rate=0.02), tmp_path / "runs" / "c", Watch())
    return tmp_path / "runs"


def test_every_record_has_a_line_and_differences_are_said(runs: Path, capsys) -> None:
    assert scripts.compare.main([str(runs)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[2] for line in printed.splitlines()[1:4]] == ["jax", "mxnet", "torch"]
    assert "learning_rate: 0.01, 0.02" in printed
    # jax comes first; torch ran the same, mxnet faster.
    assert "1 and 3: 0 of 14 predictions differ, logits by up to 0.0e+00" in printed
    assert "1 and 2: " in printed


def test_agreement_counts_predictions(runs: Path) -> None:
    path = runs / "b" / "predictions.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["logits"][3] = arrays["logits"][3][::-1] + 1
    np.savez(path, **arrays)
    found = agreement(runs / "a", runs / "b")
    assert found is not None
    assert found[:2] == (1, 14)
    assert found[2] >= 1


def test_other_images_are_not_compared(runs: Path) -> None:
    path = runs / "b" / "predictions.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, "names": arrays["names"][::-1]})
    assert agreement(runs / "a", runs / "b") is None
    path.unlink()
    assert agreement(runs / "a", runs / "b") is None


def test_a_folder_without_records_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="record.json"):
        scripts.compare.main([str(tmp_path)])


def test_records_may_come_alone(runs: Path, tmp_path: Path, capsys) -> None:
    shutil.copy(runs / "a" / "record.json", tmp_path / "copied.json")
    assert scripts.compare.main([str(tmp_path / "copied.json"), str(runs / "b")]) == 0
    assert capsys.readouterr().out.count("fine-tune") == 2
