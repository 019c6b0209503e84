"""A trained network used by its file alone: by this project, and by plain torchvision as docs/weights.md has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.contract.watch import Quiet
from common.runs.predictions import read_predictions
from tests.run_experiment import run_experiment

DOCS = Path(__file__).parents[2] / "docs" / "weights.md"
WAYS = ["short_side", "squash", "letterbox"]


@pytest.fixture
def changed(spec, odd_sizes) -> Any:
    return spec.replace(
        data=str(odd_sizes.root), image_size=64, resize_size=None, epochs=1, image_cache=False, learning_rate=1e-5
    )


def documented_lines() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return code


@pytest.mark.parametrize("pipeline", ["shared", "native", "resident"])
@pytest.mark.parametrize("way", WAYS)
def test_plain_torchvision_gives_the_runs_predictions(
    backend_name, changed, odd_sizes, tmp_path, monkeypatch, way, pipeline
) -> None:
    if backend_name != "torch":
        pytest.skip("the lines are torchvision's")
    run_experiment(changed.replace(test_resize=way, pipeline=pipeline), tmp_path, Quiet())
    monkeypatch.chdir(tmp_path)
    lines: dict[str, Any] = {}
    exec(compile(documented_lines(), str(DOCS), "exec"), lines)
    expected = read_predictions(tmp_path)

    def logits(name: str) -> np.ndarray:
        return lines["network"](lines["prepare"](odd_sizes.root / name)[None]).detach().numpy()[0]

    found = np.stack([logits(name) for name in expected.names])
    assert np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, expected.logits, rtol=0, atol=1e-5)
    # The file would be wrong with any other way.
    lines["said"]["resize"] = WAYS[WAYS.index(way) - 1]
    other = np.stack([logits(name) for name in expected.names])
    assert np.abs(other - expected.logits).max() > 1e-2


@pytest.mark.parametrize("way", ["squash", "letterbox"])
def test_the_file_alone_gives_what_training_reported(changed, tmp_path, way) -> None:
    trained = run_experiment(changed.replace(test_resize=way), tmp_path / "trained", Quiet())
    file = str(tmp_path / "trained" / "model.safetensors")
    notes: list[str] = []
    used = changed.replace(weights=file, strategy="zero-shot", image_size=None)
    again = run_experiment(used, tmp_path / "used", Noting(notes))
    assert again.final["test_accuracy"] == trained.final["test_accuracy"]
    expected, found = read_predictions(tmp_path / "trained"), read_predictions(tmp_path / "used")
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-6)
    assert notes == []
    if way == "letterbox":
        return
    other = run_experiment(used.replace(test_resize="short_side"), tmp_path / "other", Noting(notes))
    assert other.resolved["test_resize"] == "short_side"
    assert [f"resize short_side instead of {way}" in note for note in notes] == [True]


class Noting(Quiet):
    """A watch that keeps the notes of a run that compare its preprocessing with the weights' metadata."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes

    def on_note(self, text: str) -> None:
        if "metadata" in text:
            self.notes.append(text)
