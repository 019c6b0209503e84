"""Records -> plain descriptions of runs, and which runs belong together."""

from __future__ import annotations

import math
import shlex
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.report import statistics
from common.runs.record import RunRecord
from common.spec.experiment import Strategy
from common.spec.names import BACKENDS

STRATEGIES: tuple[str, ...] = typing.get_args(Strategy)

# Fields of a spec that do not make a run another experiment: what a comparison varies, where the data lies (its
# fingerprint says what it is), and the machine.
NOT_SETTINGS = {
    "backend", "strategy", "seed", "data", "data_url", "data_sha1", "bad_images", "train_limit", "test_limit",
    "classes", "workers", "device",
}  # fmt: skip

# What the spec leaves to the weights, and the record knows.
SIZES = {"image_size", "resize_size"}


def describe(number: int, path: Path, record: RunRecord) -> dict[str, Any]:
    """One run as plain values; None for what its record doesn't know. Times in seconds, memory in bytes."""
    spec, final, model, environment = record.spec, record.final, record.model, record.environment
    device = environment.get("device", {})
    accuracy, images = final.get("test_accuracy", math.nan), record.data.get("test_images", 0)
    counted = record.status == "complete" and math.isfinite(accuracy)
    interval = statistics.wilson(round(accuracy * images), images) if counted and images else None
    return {
        "number": number,
        "path": str(path),
        "backend": spec.backend,
        "strategy": spec.strategy,
        "seed": spec.seed,
        "status": record.status,
        "error": record.error,
        "counted": counted,
        "test_accuracy": accuracy if math.isfinite(accuracy) else None,
        "test_accuracy_interval": interval,
        "test_loss": final.get("test_loss"),
        "epochs": len(record.epochs),
        "epochs_planned": spec.epochs,
        "architecture": model.get("architecture"),
        "head_shape": model.get("head_shape"),
        "source_head_shape": model.get("source_head_shape"),
        "hotdog_index": model.get("hotdog_index"),
        "parameters": model.get("parameters"),
        "trained_parameters": model.get("trained_parameters"),
        "learning_rate": spec.learning_rate,
        "loss_reduction": spec.loss_reduction,
        "mean_learning_rate": record.resolved.get("mean_learning_rate", spec.mean_learning_rate),
        "weights": spec.weights,
        "image_size": record.resolved.get("image_size", spec.image_size),
        "images_per_second": record.timing.get("images_per_second"),
        "training_seconds": record.timing.get("training_seconds"),
        "total_seconds": record.timing.get("total_seconds"),
        "peak_memory_bytes": environment.get("peak_memory_bytes"),
        "peak_gpu_memory_bytes": environment.get("peak_gpu_memory_bytes"),
        "device": " ".join(filter(None, (device.get("kind"), device.get("name")))) or None,
        "processor": environment.get("processor") or None,
        "cores": environment.get("cores"),
        "platform": environment.get("platform"),
        "versions": {"python": environment.get("python"), **environment.get("versions", {})},
        "skipped_images": record.data.get("skipped_images"),
        "started": record.started,
        "command": shlex.join(record.command) if record.command else None,
    }


def classes_of(record: RunRecord) -> tuple[str, ...]:
    """The class names in the order of their indices."""
    indices: dict[str, int] = record.data.get("class_to_idx", {})
    return tuple(sorted(indices, key=indices.__getitem__))


def in_order(records: Mapping[Path, RunRecord]) -> dict[Path, RunRecord]:
    """The records by data, strategy, framework and seed, as the tables number them."""

    def place(path: Path) -> tuple[int, int, int, str]:
        spec = records[path].spec
        return STRATEGIES.index(spec.strategy), backend_order(spec.backend), spec.seed, str(path)

    return {path: records[path] for paths in by_data(records) for path in sorted(paths, key=place)}


def by_data(records: Mapping[Path, RunRecord]) -> list[list[Path]]:
    """The records that may be compared: the same fingerprint of the data and the same classes in the same order."""
    found: dict[tuple[object, ...], list[Path]] = {}
    for path, record in records.items():
        key = (record.data.get("fingerprint"), tuple(record.data.get("class_to_idx", {}).items()))
        found.setdefault(key, []).append(path)
    return sorted(found.values(), key=len, reverse=True)


def settings(record: RunRecord) -> dict[str, Any]:
    """What makes a run this experiment apart from backend, strategy, seed and data; sizes as they turned out."""
    values = {name: value for name, value in record.spec.to_dict().items() if name not in NOT_SETTINGS}
    return {**values, **{name: record.resolved.get(name, values[name]) for name in values if name in SIZES}}


def variants(records: Sequence[RunRecord]) -> list[str]:
    """For each record in which settings it differs from others of its backend and strategy; "" where in none.

    So two learning rates of one framework are never averaged as if they were two seeds.
    """
    names = []
    for record in records:
        own = settings(record)
        alike = [settings(r) for r in records if (r.spec.backend, r.spec.strategy) == key_of(record)]
        different = [name for name, value in own.items() if any(other[name] != value for other in alike)]
        names.append(", ".join(f"{in_words(name)} {value_in_words(own[name])}" for name in different))
    return names


def key_of(record: RunRecord) -> tuple[str, str]:
    """Backend and strategy."""
    return record.spec.backend, record.spec.strategy


def backend_order(name: str) -> int:
    """Frameworks in the order in which the project names them."""
    return BACKENDS.index(name)


def in_words(field: str) -> str:
    """A field of the spec as it is said."""
    return field.replace("_", " ")


def value_in_words(value: Any) -> str:
    """A field's value as it is said."""
    if value is None:
        return "by default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return " ".join(f"{name} {value_in_words(inner)}" for name, inner in value.items())
    return str(value)
