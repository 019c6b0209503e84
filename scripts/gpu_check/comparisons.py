"""Runs that are compared with each other, as parts of the GPU check: repeated, from resident images, less precise."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from common.network import weights
from common.runs.predictions import agreement, read_predictions
from common.runs.record import MODEL, RunRecord, read_record
from scripts.gpu_check.jobs import Job, run_jobs
from scripts.gpu_check.report import Report
from scripts.gpu_check.settings import Settings

# The bounds of tests/backends/test_resident.py: two roundings of a pixel, through the steps of an epoch.
LOSS_BOUND, LOGITS_BOUND = 1e-5, 1e-4
# What another precision may cost: four of 200 test images.
ACCURACY_BOUND = 0.02
TOGETHER = 4


def run_job(settings: Settings, part: str, name: str, backend: str, *options: str) -> Job:
    """Return a job that fine-tunes on the drawn pictures; its record is in `folder_of`."""
    sizes = settings.sizes
    arguments = (
        "run", "--preset", "demo", "--strategy", "fine-tune", "--backend", backend, "--device", settings.device,
        "--image-size", str(sizes.image_size), "--batch-size", str(sizes.batch_size), "--progress", "json",
        "--overwrite", "--output", str(folder_of(settings, part, name)), *options,
    )  # fmt: skip
    # What is compiled anew may be compiled otherwise: then a repeated run would show it.
    return Job(name, backend, arguments, settings.device, keeps_compiled=part != "determinism")


def folder_of(settings: Settings, part: str, name: str) -> Path:
    """Return the folder of a run."""
    return Path(settings.output) / "work" / part / name


def limits(settings: Settings) -> tuple[str, ...]:
    """Return the options of a short run of one epoch."""
    sizes = settings.sizes
    return ("--train-limit", str(sizes.train_limit), "--test-limit", str(sizes.test_limit), "--epochs", "1")


def facts(record: RunRecord) -> dict[str, Any]:
    """Return what a record says of device, precision, speed and memory."""
    return {
        "device": record.environment.get("device"),
        "versions": record.environment.get("versions"),
        "precision": record.resolved.get("precision"),
        "precision_reason": record.resolved.get("precision_reason"),
        "images_per_second": record.timing.get("images_per_second"),
        "peak_gpu_memory_bytes": record.environment.get("peak_gpu_memory_bytes"),
        "peak_memory_bytes": record.environment.get("peak_memory_bytes"),
        **record.final,
    }


def determinism(settings: Settings, report: Report) -> None:
    """Do the same run twice, in two processes at the same time: equal to the last bit, parameters and logits."""
    jobs = [
        run_job(settings, "determinism", f"{name}-{number}", name, *limits(settings))
        for number in (1, 2)
        for name in settings.pythons
    ]
    outcomes = run_jobs("determinism", jobs, settings, TOGETHER, report.job)
    for name in settings.pythons:
        if not all(outcomes[f"{name}-{number}"].done for number in (1, 2)):
            continue
        one, other = (folder_of(settings, "determinism", f"{name}-{number}") for number in (1, 2))
        first, second = (weights.read(folder / MODEL).arrays for folder in (one, other))
        different = [key for key in first if not np.array_equal(first[key], second[key])]
        logits, logits_again = (read_predictions(folder).logits for folder in (one, other))
        equal = not different and np.array_equal(logits, logits_again)
        report.add(name, {"equal": equal, "tensors": len(first), "different": different, **facts(read_record(one))})
        report.expect(equal, f"{name}: {len(different)} of {len(first)} tensors differ")


def resident(settings: Settings, report: Report) -> None:
    """Train from images on the device and from the shared pipeline: the same losses and logits, to rounding."""
    pipelines = ("shared", "resident")
    jobs = [
        run_job(settings, "resident", f"{name}-{pipeline}", name, "--pipeline", pipeline, *limits(settings))
        for pipeline in pipelines
        for name in settings.pythons
    ]
    outcomes = run_jobs("resident", jobs, settings, TOGETHER, report.job)
    for name in settings.pythons:
        if not all(outcomes[f"{name}-{pipeline}"].done for pipeline in pipelines):
            continue
        folders = {pipeline: folder_of(settings, "resident", f"{name}-{pipeline}") for pipeline in pipelines}
        records = {pipeline: read_record(folder) for pipeline, folder in folders.items()}
        usual, found = (read_predictions(folders[pipeline]).logits for pipeline in pipelines)
        apart = float(np.linalg.norm(found - usual) / np.linalg.norm(usual))
        losses = [records[pipeline].epochs[0].loss for pipeline in pipelines]
        loss_apart = abs(losses[1] - losses[0]) / abs(losses[0])
        report.add(
            name,
            {
                "logits_apart": apart,
                "loss_apart": loss_apart,
                **{key: facts(record) for key, record in records.items()},
            },
        )
        report.expect(apart <= LOGITS_BOUND, f"{name}: logits are {apart:.1e} apart, allowed {LOGITS_BOUND:g}")
        report.expect(loss_apart <= LOSS_BOUND, f"{name}: losses are {loss_apart:.1e} apart, allowed {LOSS_BOUND:g}")


def precision(settings: Settings, report: Report) -> None:
    """Train in each precision that the device has: it is what the record says, and costs no accuracy."""
    names = [name for name in settings.pythons if name != "mxnet"]
    chosen = ("fp32", "tf32", "bf16", "auto") if settings.device == "gpu" else ("fp32", "bf16")
    pipeline = ("--pipeline", "resident") if settings.device == "gpu" else ("--pipeline", "shared")
    runs = {
        f"{name}-{kind}-{seed}": (name, kind, seed)
        for seed in range(settings.sizes.seeds)
        for name in names
        for kind in chosen
        if kind != "auto" or seed == 0
    }
    few = limits(settings) if settings.device == "cpu" else ("--epochs", str(settings.sizes.epochs))
    jobs = [
        run_job(settings, "precision", key, name, "--precision", kind, "--seed", str(seed), *pipeline, *few)
        for key, (name, kind, seed) in runs.items()
    ]
    outcomes = run_jobs("precision", jobs, settings, TOGETHER, report.job)
    for name in names:
        for kind in chosen:
            keys = [key for key, run in runs.items() if run[:2] == (name, kind) and outcomes[key].done]
            usual = [f"{name}-fp32-{runs[key][2]}" for key in keys]
            if keys and all(outcomes[key].done for key in usual):
                compare_precision(settings, report, f"{name}-{kind}", keys, usual)


def compare_precision(settings: Settings, report: Report, title: str, keys: list[str], usual: list[str]) -> None:
    """Compare runs in a precision with those in float32 of the same seeds."""
    folders, usual_folders = ([folder_of(settings, "precision", key) for key in some] for some in (keys, usual))
    records = [read_record(folder) for folder in folders]
    accuracies, usual_accuracies = (
        [read_record(folder).final["test_accuracy"] for folder in some] for some in (folders, usual_folders)
    )
    apart = statistics.mean(accuracies) - statistics.mean(usual_accuracies)
    kind = title.rpartition("-")[2]
    agreed = [agreement(one, other) for one, other in zip(folders, usual_folders, strict=True)]
    report.add(
        title,
        {
            "test_accuracy": accuracies, "fp32_test_accuracy": usual_accuracies, "mean_difference": apart,
            "agreement": agreed, "runs": [facts(record) for record in records],
        },
    )  # fmt: skip
    report.expect(abs(apart) <= ACCURACY_BOUND, f"{title}: accuracy differs by {apart:.3f}, allowed {ACCURACY_BOUND}")
    wanted = {"auto": "bf16"}.get(kind, kind)
    resolved = [record.resolved["precision"] for record in records]
    report.expect(resolved == [wanted] * len(records), f"{title}: the records say {resolved}")
    if kind != "fp32":
        same = all(found is not None and found[2] == 0 for found in agreed)
        report.expect(not same, f"{title}: the numbers are those of float32")
