"""The run record: one run, one strategy, one `record.json` that says what it was, where it ran and what it reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.contract.results import EpochMetrics
from common.data.folder import ImageData
from common.data.notes import shared_images
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.system.files import write_atomically
from common.system.machine import now

SCHEMA_VERSION = 1
RECORD, PREDICTIONS, MODEL = "record.json", "predictions.npz", "model.safetensors"
# Fields that the spec may leave to the weights; the record has the values that were used.
LEFT_TO_WEIGHTS = ("image_size", "resize_size", "test_resize")

Status = Literal["running", "complete", "interrupted", "diverged", "failed"]


@dataclass
class RunRecord:
    """The content of `record.json`; `record.schema.json` beside this module describes every field."""

    spec: ExperimentSpec
    status: Status = "running"
    schema_version: int = SCHEMA_VERSION
    started: str = field(default_factory=lambda: now())
    finished: str | None = None
    error: str | None = None
    """Why a run that is not complete ended."""
    command: list[str] = field(default_factory=list)
    resolved: dict[str, Any] = field(default_factory=dict)
    """Values left by the spec to the weights and the device: sizes, normalisation, phases, equivalent learning rate."""
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    """Head shapes, parameters by stage, and the row of the source head that means hot dog."""
    epochs: list[EpochMetrics] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)
    """Loss and accuracy of the kept model on the test images and, if there are any, on the validation images.

    A run without epochs has them, too.
    """
    kept_epoch: int | None = None
    """The epoch whose model was kept: the last, or the best."""
    stopped_early: bool = False
    """Whether early stopping ended a phase before its epochs were over."""
    timing: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the content of `record.json`; schema version and status come first."""
        values = {f: getattr(self, f) for f in self.__dataclass_fields__}
        # A loss that is not finite has no JSON number; a diverged epoch is not recorded, so none is expected.
        return json.dumps(
            {
                "schema_version": self.schema_version,
                "status": self.status,
                **{k: v for k, v in values.items() if k not in ("schema_version", "status")},
                "spec": self.spec.to_dict(),
                "epochs": [asdict(metrics) for metrics in self.epochs],
            },
            indent=2,
            allow_nan=False,
        )


def read_record(path: Path) -> RunRecord:
    """Read a `record.json`.

    Args:
        path: The file, or the folder that holds it.

    Returns:
        The record.

    Raises:
        UserError: There is no such file, or it is no run record of this schema version, or a damaged one.
    """
    path = path / RECORD if path.is_dir() else path
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such record") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a run record: {error}") from error
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        version = values.get("schema_version") if isinstance(values, dict) else None
        raise UserError(f"{path}: schema_version is {version!r}, but this project reads {SCHEMA_VERSION}")
    try:
        values["spec"] = ExperimentSpec.from_dict(values["spec"])
        values["epochs"] = [EpochMetrics(**metrics) for metrics in values["epochs"]]
        return RunRecord(**values)
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path}: a damaged run record: {error}") from error


def find_records(paths: Sequence[Path]) -> list[Path]:
    """Find the `record.json` files among and below some paths.

    Args:
        paths: Files, which are taken as they are, and folders, which are searched at every depth.

    Returns:
        The files in the order of `paths`, sorted within each folder, none of them twice.

    Raises:
        UserError: `paths` is empty, or one of them has no record.
    """
    found: dict[Path, None] = {}
    for path in paths:
        below = sorted(path.rglob(RECORD)) if path.is_dir() else [path]
        if not below or not below[0].exists():
            raise UserError(f"{path}: there is no {RECORD} here; `python -m scripts.run` makes one")
        found.update(dict.fromkeys(below))
    if not found:
        raise UserError("name at least one record, or a folder with records")
    return list(found)


def differences(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Find the fields of the spec that are not the same in all records.

    Backend, strategy and seed are left out: they are what a comparison varies. So are the addresses of downloads and,
    unless a pipeline is native, `workers` and `image_cache`, which then change nothing.

    Args:
        records: At least one record.

    Returns:
        Field of the spec -> its value in each record, in the order of `records`.
    """
    specs = [choices(record) for record in records]
    varied = {"backend", "strategy", "seed", "data_url", "data_sha1", "zip_encoding"}
    if all(spec["pipeline"] != "native" for spec in specs):
        varied |= {"workers", "image_cache"}
    fields = [name for name in specs[0] if name not in varied]
    return {
        name: [spec[name] for spec in specs] for name in fields if any(spec[name] != specs[0][name] for spec in specs)
    }


def choices(record: RunRecord) -> dict[str, Any]:
    """Return the fields of a record's spec; what the spec may leave to the weights is what the run used."""
    values = record.spec.to_dict()
    return {**values, **{name: record.resolved.get(name, values[name]) for name in LEFT_TO_WEIGHTS}}


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `record.json` into a run's folder atomically."""
    write_atomically(folder / RECORD, (record.to_json() + "\n").encode())


def describe_data(data: ImageData) -> dict[str, Any]:
    """Return the record's entry on the data: how it was understood, its classes, images, split and skipped files."""
    return {
        "name": data.name,
        "summary": data.summary,
        "held_back": asdict(data.held_back) if data.held_back else None,
        "test_images_in_train": len(shared_images(data)),
        "fingerprint": data.fingerprint,
        "class_to_idx": data.class_to_idx,
        "train_images": len(data.train),
        "validation_images": len(data.validation),
        "test_images": len(data.test),
        "skipped_images": len(data.skipped),
        "skipped": [asdict(skipped) for skipped in data.skipped],
        "remarks": list(data.remarks),
    }
