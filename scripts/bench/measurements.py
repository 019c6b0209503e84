"""The measurements of `scripts.bench` at all image and batch sizes, and their tables."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backends
from common.bench import measurement, temporary_data
from common.bench.chapter import ChapterProcess, same_job
from common.bench.measurement import Contenders
from common.bench.results import PASSES, PRODUCT_SIDE, Result
from common.data import datasets
from common.data.folder import ImageData
from common.devices import precision
from common.runs.description import describe_machine
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.system.machine import peak_memory
from scripts.cli.display import console, make_table
from scripts.cli.options import BenchOptions

if TYPE_CHECKING:
    from common.devices.device import Device

# Strategy of a job that is measured as a whole -> the tab's choices that it changes. Features are computed only once
# where the backbone's BatchNorm statistics are frozen and no image is augmented.
JOBS: dict[str, dict[str, Any]] = {
    "fine-tune": {},
    "feature-extraction": {"batch_norm": "frozen", "train_crop": "none", "flip": False},
}
WAYS = {"tab": "the chapter's tab", "ours": "ours", "ready": "ready batches", "input": "input alone"}


def measure(options: BenchOptions) -> dict[str, Any]:
    """Measure all that the options ask for, and print a table for each image size and batch size.

    Args:
        options: The options of the benchmark.

    Returns:
        Plain values for JSON: the options, machine, versions, device, peak memory in bytes, `results` for each image
        size and batch size, and `jobs`, the whole trainings.

    Raises:
        UserError: Options are not allowed, or the data cannot be had.
        RunError: The chapter's tab fails.
    """
    check(options)
    data = datasets.load(options.data)
    with temporary_data.temporary_folder() as folder, ChapterProcess(backends.chapter_file(options.backend)) as tab:
        backend = backends.load(options.backend)
        base = base_spec(options)
        base = base.replace(weights=str(temporary_data.random_weights(folder, base)), classes=len(data.classes))
        device = backend.prepare(base)
        precisions = chosen_precisions(options, base, device)
        console.print(f"{options.backend} on {device.kind} ({device.name}), {base.model}", style="bold")
        contenders = Contenders(backend, tab, tuple(precisions))
        results, jobs = [], []
        for image_size in options.image_size:
            for batch_size in options.batch_size:
                spec = base.replace(image_size=image_size, batch_size=batch_size)
                name = f"{image_size}-{batch_size}"
                # Whole jobs first: compilation counts in them, and slices measured before would have done it already.
                jobs += measure_jobs(options, contenders, spec, data, folder / f"{name}-whole")
                linked = temporary_data.link_images(data, folder / name, options.steps, batch_size)
                with console.status("") as status:
                    result = measurement.run(contenders, spec, linked, options.repeats, status.update)
                show(result)
                results.append(result)
        return {
            "backend": options.backend,
            "options": {name: str(v) if isinstance(v, Path) else v for name, v in asdict(options).items()},
            "precisions": precisions,
            "machine": describe_machine(),
            "versions": backend.versions(),
            "device": asdict(device),
            "peak_memory_bytes": {"tab": tab.peak_memory(), "ours": peak_memory()},
            "peak_gpu_memory_bytes": backend.peak_gpu_memory(),
            "load_average": os.getloadavg(),
            "results": [result.to_dict() for result in results],
            "jobs": jobs,
        }


def check(options: BenchOptions) -> None:
    """Raise UserError for options that measure nothing."""
    for name, low in (("repeats", 1), ("steps", 1), ("epochs", 1)):
        if getattr(options, name) < low:
            raise UserError(f"--{name} {getattr(options, name)}: expected at least {low}")
    unknown = [job for job in options.jobs if job not in JOBS]
    if unknown:
        raise UserError(f"--jobs {' '.join(unknown)}: the jobs are {', '.join(JOBS)}")


def base_spec(options: BenchOptions) -> ExperimentSpec:
    """Return the experiment of the chapter's tab, with what the options say of it."""
    names = ("backend", "pipeline", "presize", "epochs", "workers")
    return same_job(ExperimentSpec(learning_rate=1e-6, **{name: getattr(options, name) for name in names}))


def chosen_precisions(options: BenchOptions, spec: ExperimentSpec, device: Device) -> dict[str, str]:
    """Return the precisions to measure.

    Args:
        options: The options of the benchmark.
        spec: The experiment.
        device: The device, which decides on the precision `auto`.

    Returns:
        Precision -> why it is measured; float32 is always first, as the tab computes in it.
    """
    chosen = {"fp32": "the tab's"}
    for name in options.precision:
        resolved, reason = precision.resolve(spec.replace(precision=name), device)
        chosen.setdefault(resolved.precision, reason)
        if name == "auto":
            console.print(f"precision auto is {resolved.precision}: {reason}")
    return chosen


def measure_jobs(
    options: BenchOptions, contenders: Contenders, spec: ExperimentSpec, data: ImageData, folder: Path
) -> list[dict[str, Any]]:
    """Measure the whole trainings that the options ask for, on all images, and print a line for each.

    Args:
        options: The options of the benchmark.
        contenders: The backend and the tab; the last of the precisions is measured.
        spec: The experiment, with its image size and batch size.
        data: The images.
        folder: A folder for links to the images.

    Returns:
        For each job the image size, the batch size and the values of `common.bench.measurement.whole_job`.
    """
    measured = []
    for job in options.jobs:
        # Each job has links of its own, so that it decodes its images itself.
        linked = temporary_data.link_images(data, folder / job, len(data.train) + len(data.test), spec.batch_size)
        chosen = spec.replace(strategy=job, precision=contenders.precisions[-1], **JOBS[job])
        with console.status("") as status:
            found = measurement.whole_job(contenders, chosen, linked, status.update)
        console.print(
            f"{job}, {chosen.epochs} epochs, {chosen.precision}: the tab {found['tab_seconds']:.0f} s, "
            f"ours {found['seconds']:.0f} s, {found['times_tab']:.2f} times as fast"
            + (f"; again, with its features, {found['seconds_again']:.1f} s" if found["seconds_again"] else "")
        )
        measured.append({"image_size": spec.image_size, "batch_size": spec.batch_size, **found})
    return measured


def show(result: Result) -> None:
    """Print a table of the measurements at one image size and batch size, and the rates of matrix products."""
    console.print(f"\n{result.image_size} px, batch {result.batch_size}", style="bold")
    table = make_table("", "precision", "images/s", "of the tab", "of ready", "of a product")
    order = [(job, way) for job in PASSES for way in WAYS]
    for case in sorted((c for c in result.cases if c.way in WAYS), key=lambda c: order.index((c.job, c.way))):
        shares = [result.ratio(case, "tab"), result.ratio(case, "ready"), result.share_of_peak(case)]
        texts = ["" if share is None or case.way == "input" else f"{share:.2f}" for share in shares]
        if case.way == "tab":
            texts = ["", "", texts[2]]
        job = {"train": "training", "test": "evaluation"}[case.job]
        table.add_row(f"{job}, {WAYS[case.way]}", case.precision, f"{case.rate:.1f}", *texts)
    console.print(table)
    for case in result.cases:
        if case.job == "product":
            rate = case.rate * 2 * PRODUCT_SIDE**3 / 1e9
            console.print(f"a matrix product reaches {rate:.0f} GFLOP/s in {case.precision}", style="dim")
