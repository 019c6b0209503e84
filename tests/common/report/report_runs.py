"""Records and predictions as runs would have left them, for tests of the report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.contract.results import EpochMetrics, Predictions
from common.data.folder import ImageData, Sample
from common.report import build
from common.runs import record
from common.runs.predictions import write_predictions
from common.runs.record import RunRecord
from common.spec.experiment import ExperimentSpec

CLASSES = ("hotdog", "not-hotdog")


def made_up_data(classes: Sequence[str] = CLASSES, test: int = 40, name: str = "photos") -> ImageData:
    """Data whose files exist nowhere."""
    label_of = [index * len(classes) // test for index in range(test)]
    samples = tuple(
        Sample(Path(f"/nowhere/{i}.jpg"), label, f"test/{classes[label]}/{i:04d}.jpg")
        for i, label in enumerate(label_of)
    )
    return ImageData(name, Path("/nowhere"), tuple(classes), (), samples, ())


def write_photographs(root: Path, classes: Sequence[str], test: int) -> None:
    """A folder of plain pictures, one to train on for each class."""
    for split, count in (("train", len(classes)), ("test", test)):
        for index in range(count):
            folder = root / split / classes[index * len(classes) // count]
            folder.mkdir(parents=True, exist_ok=True)
            color = tuple(int(v) for v in np.random.default_rng(index).integers(40, 220, 3))
            Image.new("RGB", (90, 60), color).save(folder / f"{index:04d}.png")


@dataclass
class Runs:
    """Writes runs below a folder and keeps their records by path."""

    folder: Path
    data: ImageData = field(default_factory=made_up_data)
    records: dict[Path, RunRecord] = field(default_factory=dict)

    def logits(self, skill: float, *key: int, noise: float = 1.0) -> np.ndarray:
        """(images, classes) float32: the true class ahead by `skill`, and noise drawn from `key`."""
        labels = np.array([sample.label for sample in self.data.test])
        drawn = np.random.default_rng(key).normal(0, noise, (len(labels), len(self.data.classes)))
        drawn[np.arange(len(labels)), labels] += skill
        return drawn.astype(np.float32)

    def add(self, logits: np.ndarray | None = None, *, status: record.Status = "complete", **spec: Any) -> Path:
        """Write one run; `spec` are fields of its ExperimentSpec. The path of its record."""
        spec = {"data": str(self.data.root), "epochs": 3, **spec}
        experiment = ExperimentSpec(**spec)
        labels = np.array([sample.label for sample in self.data.test])
        logits = self.logits(1.0, experiment.seed) if logits is None else logits
        found = Predictions(logits, labels)
        complete = status == "complete"
        epochs = [
            EpochMetrics(e, experiment.strategy, 0.7 / e, 0.6, found.loss + 0.1 / e, found.accuracy, 2.0, 50.0)
            for e in range(1, experiment.epochs + 1)
        ]
        run = RunRecord(
            experiment,
            status=status,
            started=f"2026-01-01T00:00:{len(self.records) % 60:02d}+00:00",
            error=None if complete else f"Stopped: {status} at step 7",
            command=["python", "-m", "scripts.run", "--backend", experiment.backend, "--seed", str(experiment.seed)],
            resolved={"image_size": 64, "mean_learning_rate": experiment.mean_learning_rate},
            data=self.describe_data(),
            environment={
                "python": "3.11.7", "platform": "Linux", "processor": "A processor", "cores": 2,
                "versions": {"numpy": "1.23.5" if experiment.backend == "mxnet" else "2.4.6"},
                "device": {"kind": "cpu", "name": "2 threads"}, "peak_memory_bytes": 2 * 10**9,
                "peak_gpu_memory_bytes": None,
            },
            model={
                "architecture": "resnet18", "head_shape": [2, 512], "source_head_shape": [1000, 512],
                "hotdog_index": 934, "parameters": 11_177_538, "parameters_by_stage": {},
                "trained_parameters": 11_177_538,
            },
            epochs=epochs if complete else epochs[:1],
            final={"test_loss": found.loss, "test_accuracy": found.accuracy} if complete else {},
            timing={"training_seconds": 6.0, "total_seconds": 8.0, "images_per_second": 50.0} if complete else {},
        )  # fmt: skip
        path = self.folder / f"{len(self.records)}-{experiment.backend}-{experiment.strategy}" / record.RECORD
        record.write_record(path.parent, run)
        if complete:
            write_predictions(path.parent, found, self.data)
        self.records[path] = record.read_record(path)
        return path

    def describe_data(self) -> dict[str, Any]:
        """As `common.runs.record.describe_data` does, also of files that exist nowhere."""
        if self.data.root.exists():
            return record.describe_data(self.data)
        names = "\n".join([self.data.name, *self.data.classes, *(sample.name for sample in self.data.test)])
        return {
            "name": self.data.name,
            "fingerprint": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
            "class_to_idx": self.data.class_to_idx,
            "train_images": 20,
            "test_images": len(self.data.test),
            "skipped_images": 0,
            "skipped": [],
        }


def add_grid(runs: Runs, backends: Sequence[str], seeds: Sequence[int], **spec: Any) -> None:
    """Runs of fine-tuning, alike in all frameworks, and from scratch, worse and different in each."""
    for number, backend in enumerate(backends):
        for seed in seeds:
            runs.add(runs.logits(2.5, seed), backend=backend, seed=seed, **spec)
            runs.add(
                runs.logits(0.6, seed, number),
                backend=backend,
                seed=seed,
                strategy="scratch",
                learning_rate=5e-4,
                **spec,
            )


def built(runs: Runs, **options: Any) -> dict[str, str]:
    """The report's files as text, by kind."""
    paths = build(runs.records, runs.folder.parent / "report", **options)
    assert list(paths) == ["html", "md", "json"]
    return {kind: path.read_text(encoding="utf-8") for kind, path in paths.items()}


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open not in ("style", "script"):
            self.text += data
