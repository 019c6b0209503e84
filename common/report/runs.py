"""Describe runs, and find those that belong together."""

from __future__ import annotations

import json
import math
import shlex
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.report import statistics
from common.report.data import Run
from common.runs.record import RunRecord, choices
from common.spec.experiment import Strategy
from common.spec.names import BACKENDS

STRATEGIES: tuple[str, ...] = typing.get_args(Strategy)

# Fields of a spec that do not make a run another experiment: those that a comparison varies, the place of the data
# (its fingerprint identifies it), and the machine.
NOT_SETTINGS = {
    "backend", "strategy", "seed", "data", "data_url", "data_sha1", "zip_encoding", "split_seed", "bad_images",
    "max_pixels", "train_limit", "test_limit", "classes", "workers", "device",
}  # fmt: skip


def describe(number: int, path: Path, record: RunRecord, group: int) -> Run:
    """Describe one run.

    Args:
        number: The run's number in the tables.
        path: The path of its record.json.
        record: The record.
        group: The number of its data group.

    Returns:
        The run as if no other repeated it, none differed from it in settings, and its predictions were usable.
    """
    spec, model, environment, timing = record.spec, record.model, record.environment, record.timing
    device, images = environment.get("device", {}), record.data.get("test_images", 0)
    accuracy, counted = _accuracy(record), has_result(record)
    return Run(
        number=number, path=str(path), backend=spec.backend, strategy=spec.strategy, seed=spec.seed,
        status=record.status, error=record.error, counted=counted,
        test_accuracy=accuracy if math.isfinite(accuracy) else None,
        test_accuracy_interval=statistics.wilson(round(accuracy * images), images) if counted and images else None,
        test_loss=record.final.get("test_loss"), epochs=len(record.epochs), epochs_planned=spec.epochs,
        architecture=model.get("architecture"), head_shape=model.get("head_shape"),
        source_head_shape=model.get("source_head_shape"), hotdog_index=model.get("hotdog_index"),
        parameters=model.get("parameters"), trained_parameters=model.get("trained_parameters"),
        learning_rate=spec.learning_rate, loss_reduction=spec.loss_reduction,
        mean_learning_rate=record.resolved.get("mean_learning_rate", spec.mean_learning_rate),
        weights=spec.weights, image_size=record.resolved.get("image_size", spec.image_size),
        images_per_second=timing.get("images_per_second"), training_seconds=timing.get("training_seconds"),
        total_seconds=timing.get("total_seconds"), peak_memory_bytes=environment.get("peak_memory_bytes"),
        peak_gpu_memory_bytes=environment.get("peak_gpu_memory_bytes"),
        device=" ".join(filter(None, (device.get("kind"), device.get("name")))) or None,
        processor=environment.get("processor") or None, cores=environment.get("cores"),
        platform=environment.get("platform"),
        versions={"python": environment.get("python"), **environment.get("versions", {})},
        skipped_images=record.data.get("skipped_images"), started=record.started,
        command=shlex.join(record.command) if record.command else None,
        group=group, series=spec.backend, predictions=None,
    )  # fmt: skip


def _accuracy(record: RunRecord) -> float:
    """Return the test accuracy, NaN where there is none."""
    return record.final.get("test_accuracy", math.nan)


def has_result(record: RunRecord) -> bool:
    """Return whether a run is complete and its test accuracy is finite."""
    return record.status == "complete" and math.isfinite(_accuracy(record))


def sort_key(run: Run) -> tuple[int, int, str, int]:
    """Return the place of a run in the order of the tables: by strategy, framework, series and seed."""
    return STRATEGIES.index(run.strategy), backend_order(run.backend), run.series, run.seed


def newest(records: Mapping[Path, RunRecord]) -> dict[Path, RunRecord]:
    """Return the records that count.

    Of runs with a result that differ in nothing, seed included, only the newest does: a repetition is no further seed.
    """
    found: dict[str, Path] = {}
    for path, record in sorted(records.items(), key=lambda item: item[1].started):
        if has_result(record):
            found[json.dumps([*key_of(record), record.spec.seed, settings(record)], sort_keys=True)] = path
    counted = set(found.values())
    return {path: record for path, record in records.items() if path in counted}


def classes_of(record: RunRecord) -> tuple[str, ...]:
    """Return the class names in the order of their indices."""
    indices: dict[str, int] = record.data.get("class_to_idx", {})
    return tuple(sorted(indices, key=indices.__getitem__))


def in_order(records: Mapping[Path, RunRecord]) -> dict[Path, RunRecord]:
    """Sort the records by data, strategy, framework and seed, the order in which the tables number them."""

    def place(path: Path) -> tuple[int, int, int, str]:
        spec = records[path].spec
        return STRATEGIES.index(spec.strategy), backend_order(spec.backend), spec.seed, str(path)

    return {path: records[path] for paths in by_data(records) for path in sorted(paths, key=place)}


def by_data(records: Mapping[Path, RunRecord]) -> list[list[Path]]:
    """Group the records that may be compared, the largest group first.

    Records of one group have the same fingerprint of the data, and the same classes in the same order.

    Returns:
        The paths of each group.
    """
    found: dict[tuple[object, ...], list[Path]] = {}
    for path, record in records.items():
        key = (record.data.get("fingerprint"), tuple(record.data.get("class_to_idx", {}).items()))
        found.setdefault(key, []).append(path)
    return sorted(found.values(), key=len, reverse=True)


def settings(record: RunRecord) -> dict[str, Any]:
    """Return the settings of a run by field: its spec without backend, strategy, seed, data and machine.

    What the spec leaves to the weights is what the run used.
    """
    return {name: value for name, value in choices(record).items() if name not in NOT_SETTINGS}


def variants(records: Sequence[RunRecord]) -> list[str]:
    """Name each record by the settings in which it differs from others of its backend and strategy.

    So two learning rates of one framework are never averaged as if they were two seeds.

    Returns:
        A name such as "learning rate 0.01" for each record, "" where it differs in nothing.
    """
    names = []
    for record in records:
        own = settings(record)
        alike = [settings(r) for r in records if (r.spec.backend, r.spec.strategy) == key_of(record)]
        different = [name for name, value in own.items() if any(other[name] != value for other in alike)]
        names.append(", ".join(f"{in_words(name)} {value_in_words(own[name])}" for name in different))
    return names


def key_of(record: RunRecord) -> tuple[str, str]:
    """Return the backend and the strategy of a record."""
    return record.spec.backend, record.spec.strategy


def backend_order(name: str) -> int:
    """Return the place of a framework in the order in which the project names them."""
    return BACKENDS.index(name)


def in_words(field: str) -> str:
    """Return the name of a spec's field as a sentence has it.

    >>> in_words("learning_rate")
    'learning rate'
    """
    return field.replace("_", " ")


def value_in_words(value: Any) -> str:
    """Return the value of a spec's field as a sentence has it.

    >>> value_in_words(None), value_in_words(True), value_in_words({"stem": 0.1, "body": 1.0})
    ('by default', 'yes', 'stem 0.1 body 1')
    """
    if value is None:
        return "by default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return " ".join(f"{name} {value_in_words(inner)}" for name, inner in value.items())
    return str(value)
