"""The GPU against the CPU, and the backends against each other on it, within the bounds of `scripts.crosscheck`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.crosscheck import compare, probe
from common.crosscheck.compare import Check, Probe
from common.crosscheck.scenarios import SCENARIOS, YARDSTICK_BACKEND
from scripts.gpu_check.jobs import Job, run_jobs
from scripts.gpu_check.report import Report
from scripts.gpu_check.settings import Settings

TOGETHER = 4


def crosscheck(settings: Settings, report: Report) -> None:
    """Write the probes of each backend on the CPU and on the device, and compare them with torch's in float64."""
    # A device of a rehearsal is the CPU too, and has a probe of its own all the same.
    wanted = [(name, place, "fp32") for place in ("device", "cpu") for name in settings.pythons]
    runs = sorted({*wanted, (YARDSTICK_BACKEND, "cpu", "fp64"), (YARDSTICK_BACKEND, "cpu", "fp32")})
    jobs = [probe_job(settings, *run) for run in runs if run[0] in settings.pythons]
    outcomes = run_jobs("crosscheck", jobs, settings, TOGETHER, report.job)
    probes = {name: Probe(*probe.read(path_of(settings, name))) for name, outcome in outcomes.items() if outcome.done}
    report.add("probes", {name: found.facts for name, found in probes.items()})
    yardstick = probes.get(f"{YARDSTICK_BACKEND}-cpu-fp64")
    if yardstick is None:
        report.expect(False, "there is no yardstick: torch's float64 on the CPU")
        return
    scenarios = tuple(scenario for scenario in SCENARIOS if scenario.name in settings.sizes.scenarios)
    for title, names in groups(settings).items():
        group = {label: probes[name] for label, name in names.items() if name in probes}
        if len(group) < len(names):
            report.expect(False, f"{title}: a probe is missing")
            continue
        checks = compare.compare(group, yardstick, scenarios)
        report.add(title, summary_of(checks))
        for check in checks:
            report.expect(
                check.passed, f"{title}: {check.name}: {check.distances}, allowed {check.allowed} {check.note}"
            )


def probe_job(settings: Settings, backend: str, place: str, precision: str) -> Job:
    """Return the job that writes a probe, on the `cpu` or on the `device` of the settings."""
    sizes, device = settings.sizes, settings.device if place == "device" else "cpu"
    name = f"{backend}-{place}-{precision}"
    path = path_of(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    values = {
        "output": str(path), "steps": sizes.steps, "scenarios": sizes.scenarios, "backend": backend, "device": device,
        "precision": precision, "image_size": sizes.image_size, "batch_size": sizes.batch_size,
        "train_limit": sizes.train_limit, "test_limit": sizes.test_limit,
    }  # fmt: skip
    return Job(name, backend, ("probe", json.dumps(values)), device)


def path_of(settings: Settings, name: str) -> Path:
    """Return the path of a probe."""
    return Path(settings.output) / "work" / f"probe-{name}.npz"


def groups(settings: Settings) -> dict[str, dict[str, str]]:
    """Return the comparisons: title -> label of each probe -> its name.

    The label `torch` marks torch's float32 run, by whose distance to the yardstick all others are judged.
    """
    cpu = {YARDSTICK_BACKEND: f"{YARDSTICK_BACKEND}-cpu-fp32"}
    found = {}
    for name in settings.pythons:
        usual = cpu if name == YARDSTICK_BACKEND else {**cpu, name: f"{name}-cpu-fp32"}
        found[f"{name}, device against CPU"] = {**usual, f"{name} on the device": f"{name}-device-fp32"}
    if len(settings.pythons) > 1:
        found["all on the device"] = {name: f"{name}-device-fp32" for name in settings.pythons}
    return found


def summary_of(checks: list[Check]) -> dict[str, Any]:
    """Return checks as plain values, with the share of its bound that the worst of each kind takes."""
    shares = [
        (max(check.distances.values()) / check.allowed, check.name)
        for check in checks
        if check.allowed and check.distances
    ]
    return {
        "passed": all(check.passed for check in checks),
        "nearest_to_its_bound": max(shares, default=None),
        "checks": [asdict(check) for check in checks],
    }
