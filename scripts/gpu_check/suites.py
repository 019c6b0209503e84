"""The tests of the backends on the GPU, as parts of the GPU check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from scripts.environments.definitions import ROOT
from scripts.gpu_check.jobs import Job, run_jobs
from scripts.gpu_check.report import Report
from scripts.gpu_check.settings import Settings

# What the suite examines on the GPU: the whole of it takes many minutes, most of them for compiling.
SUITE = ("test_models.py", "test_precision.py", "test_features.py", "test_lora.py")


def tests(settings: Settings, report: Report) -> None:
    """Run the tests marked `gpu` of each backend; in a rehearsal pytest skips them all."""
    paths = [str(ROOT / "tests" / "backends")]
    run_pytest("tests", settings, report, paths, ("-m", "gpu"))


def suite(settings: Settings, report: Report) -> None:
    """Run a choice of the backends' suite, which otherwise computes on the CPU, on the GPU."""
    paths = [str(ROOT / "tests" / "backends" / name) for name in SUITE]
    choice = ("-m", "not slow and not gpu") if settings.device == "gpu" else ("-k", "test_products_run")
    run_pytest("suite", settings, report, paths, ("--device", settings.device, *choice))


def run_pytest(part: str, settings: Settings, report: Report, paths: list[str], options: tuple[str, ...]) -> None:
    """Run pytest once for each backend, and note the numbers of tests and each that failed."""
    work = Path(settings.output) / "work"
    work.mkdir(parents=True, exist_ok=True)
    results = {name: work / f"{part}-{name}.xml" for name in settings.pythons}
    jobs = [
        Job(
            name,
            name,
            ("-m", "pytest", *paths, "-q", "--tb=short", "-p", "no:cacheprovider", "--rootdir", str(ROOT),
             "--backend", name, *options, f"--junit-xml={file}"),
            settings.device,
        )
        for name, file in results.items()
    ]  # fmt: skip
    for file in results.values():
        file.unlink(missing_ok=True)
    outcomes = run_jobs(part, jobs, settings, len(jobs), report.job)
    counts = {name: count(results[name]) for name in outcomes if results[name].exists()}
    report.add("tests", {name: asdict(found) for name, found in counts.items()})
    for name, found in counts.items():
        report.expect(found.passed > 0 or settings.device == "cpu", f"{name}: no test ran")
    report.content["summary"] = "; ".join(
        f"{name}: {found.passed} passed, {found.skipped} skipped" for name, found in counts.items()
    )


@dataclass(frozen=True)
class Counts:
    """How the tests of one backend ended."""

    passed: int
    skipped: int
    failed: list[str]
    """Name and message of each."""


def count(file: Path) -> Counts:
    """Count the tests of a JUnit file."""
    cases = list(ElementTree.parse(file).getroot().iter("testcase"))
    failed = [
        f"{case.get('name')}: {(found.get('message') or '').strip()[:300]}"
        for case in cases
        for found in (*case.findall("failure"), *case.findall("error"))
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Counts(len(cases) - skipped - len(failed), skipped, failed)
