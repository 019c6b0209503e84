"""What is measured, as parts of the GPU check: speed against the chapter's tab and ready batches, and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.runs.record import read_record
from scripts.gpu_check.comparisons import TOGETHER, facts, folder_of, limits, run_job
from scripts.gpu_check.jobs import Job, run_jobs
from scripts.gpu_check.report import Report
from scripts.gpu_check.settings import Settings

# Training on a GPU from images that it holds: what is aimed at. The first is for torch alone.
TIMES_TAB, TIMES_READY = 5.0, 0.9
# In the benchmark the threads that prepare images are as many as the machine has cores for, up to this.
WORKERS = 12


def bench(settings: Settings, report: Report) -> None:
    """Measure each backend with both pipelines, one at a time, so that nothing else runs meanwhile."""
    pipelines = ("resident", "shared")
    runs = [(name, pipeline) for name in settings.pythons for pipeline in pipelines]
    jobs = [bench_job(settings, *run) for run in runs]
    outcomes = run_jobs("bench", jobs, settings, 1, report.job)
    lines = []
    for name, pipeline in runs:
        if not outcomes[f"{name}-{pipeline}"].done:
            continue
        found = json.loads(bench_file(settings, name, pipeline).read_text())
        # A path of the machine that measured says nothing elsewhere.
        del found["options"]["output"]
        report.add(f"{name}-{pipeline}", found)
        for result in found["results"]:
            title = f"{name}, {pipeline}, batch {result['batch_size']}"
            best = fastest(result)
            lines.append(
                f"{title}: {best['times_tab']:.2f} of the tab, {best['times_ready']:.2f} of ready ({best['precision']})"
            )
            if settings.device == "gpu" and pipeline == "resident":
                report.expect(
                    name != "torch" or best["times_tab"] >= TIMES_TAB,
                    f"{title}: {best['times_tab']:.2f} times the tab, aimed at {TIMES_TAB:g}",
                )
                report.expect(
                    best["times_ready"] >= TIMES_READY,
                    f"{title}: {best['times_ready']:.2f} of ready batches, aimed at {TIMES_READY:g}",
                )
    report.content["ratios"] = lines
    report.content["summary"] = "; ".join(lines)


def bench_job(settings: Settings, backend: str, pipeline: str) -> Job:
    """Return the job that measures a backend with a pipeline."""
    sizes, file = settings.sizes, bench_file(settings, backend, pipeline)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    arguments = (
        "bench", "--backend", backend, "--pipeline", pipeline, "--image-size", str(sizes.bench_image_size),
        "--batch-size", *map(str, sizes.bench_batch_sizes), "--precision", "auto", "--steps", "4",
        "--repeats", str(sizes.repeats), "--workers", str(WORKERS), "--output", str(file),
    )  # fmt: skip
    return Job(f"{backend}-{pipeline}", backend, arguments, settings.device)


def bench_file(settings: Settings, backend: str, pipeline: str) -> Path:
    """Return the path of a measurement."""
    return Path(settings.output) / "work" / f"bench-{backend}-{pipeline}.json"


def fastest(result: dict[str, Any]) -> dict[str, Any]:
    """Return the case of our training that is fastest, of all precisions that were measured."""
    ours = [case for case in result["cases"] if (case["job"], case["way"]) == ("train", "ours")]
    return max(ours, key=lambda case: float(case["per_second"]))


def memory(settings: Settings, report: Report) -> None:
    """Note the peak of memory on the GPU and in the machine, for both pipelines and precisions, at the book's sizes."""
    big = (
        ("--image-size", "224", "--batch-size", "128", "--epochs", "1")
        if settings.device == "gpu"
        else limits(settings)
    )
    runs = {
        f"{name}-{pipeline}-{kind}": (name, pipeline, kind)
        for pipeline, kind in (("shared", "fp32"), ("resident", "fp32"), ("shared", "bf16"))
        for name in settings.pythons
        if (name, kind) != ("mxnet", "bf16")
    }
    jobs = [
        run_job(settings, "memory", key, name, "--pipeline", pipeline, "--precision", kind, *big)
        for key, (name, pipeline, kind) in runs.items()
    ]
    outcomes = run_jobs("memory", jobs, settings, TOGETHER, report.job)
    lines = []
    for key in runs:
        if not outcomes[key].done:
            continue
        found = facts(read_record(folder_of(settings, "memory", key)))
        report.add(key, found)
        peak = found["peak_gpu_memory_bytes"]
        # MXNet does not count it.
        expected = settings.device == "gpu" and runs[key][0] != "mxnet"
        report.expect(bool(peak) or not expected, f"{key}: no peak of memory on the GPU")
        lines.append(f"{key}: {peak / 2**30:.2f} GiB" if peak else f"{key}: not counted")
    report.content["summary"] = "; ".join(lines)
