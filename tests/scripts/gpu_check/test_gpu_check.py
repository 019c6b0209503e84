"""The GPU check, as far as it can be examined without a GPU: what is missing, and parts that break."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.devices import driver
from scripts import gpu_check
from scripts.gpu_check import packages, parts
from scripts.gpu_check.jobs import Job, run_jobs
from scripts.gpu_check.report import Report
from scripts.gpu_check.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[3]
DOCS = CHECKOUT / "docs" / "gpu.md"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(str(tmp_path), "cpu", {"torch": sys.executable, "jax": sys.executable})


def let_parts_run(monkeypatch: pytest.MonkeyPatch, **codes: str) -> None:
    """Replace the parts by Python code, to which `file` is the path of the part's result."""

    def command(name: str, settings: Settings) -> list[str]:
        setup = f"import json, os, subprocess, sys, time; file = {str(parts.result_file(name, settings))!r}\n"
        write = "write = lambda **content: open(file, 'w').write(json.dumps(content))\n"
        return [sys.executable, "-c", setup + write + codes[name]]

    monkeypatch.setattr(parts, "PARTS", dict.fromkeys(codes, 20))
    monkeypatch.setattr(parts, "command_of", command)


def test_the_check_begins_with_the_standard_library_alone() -> None:
    code = "import sys, scripts.gpu_check; print(*{m.split('.')[0] for m in sys.modules})"
    command = [sys.executable, "-S", "-c", code]
    loaded = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) - sys.stdlib_module_names <= {"__main__", "backends", "common", "scripts"}


def test_what_is_missing_is_said_with_the_command_that_fetches_it(monkeypatch, tmp_path, capsys) -> None:
    absent = {"tyro", "flaxmodels", "google.protobuf", "torch"}
    monkeypatch.setattr(packages, "is_there", lambda module: module not in absent)
    assert gpu_check.main(["--device", "cpu", "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "lacks tyro, torch, flaxmodels, google.protobuf" in said
    (line,) = [line for line in said.splitlines() if "pip download" in line]
    words = shlex.split(line)
    assert "--no-deps" in words
    assert words[-3:] == ["tyro", "flaxmodels==0.1.3", "protobuf"], "no command can choose the build of a framework"
    assert "torch: install the build for this GPU" in said
    assert not (tmp_path / "out").exists()


def test_a_backend_that_is_left_out_needs_nothing(monkeypatch) -> None:
    monkeypatch.setattr(packages, "is_there", lambda module: False)
    modules = {package.module for package in packages.missing(["torch"])}
    assert {"torch", "tyro"} <= modules
    assert not {"jax", "flaxmodels", "grain"} & modules


def test_modules_in_packages_are_looked_for() -> None:
    assert packages.is_there("os.path")
    assert not packages.is_there("no_such_package.part")


def test_the_docs_list_every_package() -> None:
    text = DOCS.read_text()
    shown = text[text.index("python3 -m pip download") :].split("```")[0]
    command = shlex.split(shown.replace("\\\n", " "))
    wanted = [package.requirement for package in packages.PACKAGES if package.module not in packages.FRAMEWORKS]
    assert command == shlex.split(packages.download_command("3.12", wanted))
    assert all(f"`{requirement}`" in text for requirement in wanted)
    assert all(f"`{name}`" in text for name in parts.PARTS)


def test_without_a_gpu_it_does_not_begin(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(gpu_check, "visible_gpus", list)
    assert gpu_check.main(["--output", str(tmp_path / "out")]) == 2
    assert "--device cpu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("capability", "left_out"), [((8, 6), set()), ((9, 0), {"mxnet"}), (None, set())])
def test_a_gpu_that_mxnet_has_no_code_for_leaves_it_out(monkeypatch, capsys, capability, left_out) -> None:
    monkeypatch.setattr(driver, "compute_capability", lambda: capability)
    assert {"torch", "keras", "jax", "mxnet"} - set(gpu_check.default_backends(True, "gpu")) == left_out
    assert ("mxnet is left out" in capsys.readouterr().err) == bool(left_out)
    assert gpu_check.default_backends(False, "gpu") == ["torch", "jax"]


def test_a_part_that_breaks_does_not_stop_the_others(monkeypatch, settings, tmp_path) -> None:
    let_parts_run(
        monkeypatch,
        good="write(passed=True, summary='fine', found=1)",
        breaks="write(found=2); sys.exit(3)",
        silent="pass",
        wrong="write(passed=False, summary='0.5 instead of 1')",
        last="write(passed=True)",
    )
    results = parts.run_all(list(parts.PARTS), settings, 60)
    assert [(result.part, result.passed) for result in results] == [
        ("good", True), ("breaks", False), ("silent", False), ("wrong", False), ("last", True),
    ]  # fmt: skip
    contents = {name: json.loads((tmp_path / f"gpu-{name}.json").read_text()) for name in parts.PARTS}
    assert contents["good"]["found"] == 1
    assert contents["breaks"]["found"] == 2
    assert contents["breaks"]["error"] == "ended with exit code 3"
    assert not contents["silent"]["passed"]
    assert results[3].summary == "0.5 instead of 1"


def test_a_part_that_takes_too_long_is_stopped_with_all_that_it_started(monkeypatch, settings, tmp_path) -> None:
    started = tmp_path / "started"
    code = (
        f"child = subprocess.Popen(['sleep', '50']); open({str(started)!r}, 'w').write(str(child.pid))\n"
        "write(passed=True, found=1); time.sleep(50)"
    )
    let_parts_run(monkeypatch, slow=code, after="write(passed=True)")
    monkeypatch.setattr(parts, "PATIENCE", {"cpu": 0.25})
    slow, after = parts.run_all(["slow", "after"], settings, 60)
    assert not slow.passed
    assert "stopped" in slow.summary
    assert after.passed
    content = json.loads((tmp_path / "gpu-slow.json").read_text())
    assert (content["found"], content["passed"]) == (1, False)
    child = Path("/proc") / started.read_text() / "stat"
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_when_the_time_is_over_no_part_begins(monkeypatch, settings, tmp_path) -> None:
    let_parts_run(monkeypatch, one="write(passed=True)")
    (result,) = parts.run_all(["one"], settings, 0)
    assert not result.passed
    assert "not begun" in json.loads((tmp_path / "gpu-one.json").read_text())["error"]


def test_an_older_result_is_not_taken_for_this_one(monkeypatch, settings, tmp_path) -> None:
    (tmp_path / "gpu-one.json").write_text('{"passed": true, "found": 7}')
    let_parts_run(monkeypatch, one="sys.exit(0)")
    (result,) = parts.run_all(["one"], settings, 60)
    assert not result.passed
    assert "found" not in json.loads((tmp_path / "gpu-one.json").read_text())


def test_a_failed_job_is_reported_with_its_last_words(monkeypatch, settings, tmp_path) -> None:
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'] + 'no GPU'); raise SystemExit(5)"
    (tmp_path / "failing_job.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    jobs = [
        Job("bad", "torch", ("-m", "failing_job"), "cpu"),
        Job("good", "jax", ("-m", "platform"), "cpu"),
    ]
    written: list[bool] = []
    report = Report(lambda content: written.append("passed" in content), {"device": "cpu"})
    outcomes = run_jobs("part", jobs, settings, 2, report.job)
    report.finish()
    assert (outcomes["bad"].code, outcomes["good"].done) == (5, True)
    assert report.failures == ["bad failed: no GPU"]
    assert report.content["passed"] is False
    assert written == [False, False, True], "what is found is written as soon as it is there"
    assert (tmp_path / "logs" / "part-bad.log").read_text() == "no GPU\n"


def test_jobs_on_the_device_of_a_gpu_check_see_the_gpu(settings) -> None:
    on_gpu, on_cpu = (Job("a", "torch", ("run",), device).variables(settings) for device in ("gpu", "cpu"))
    assert on_cpu["CUDA_VISIBLE_DEVICES"] == ""
    assert on_gpu.get("CUDA_VISIBLE_DEVICES") != ""
    repeated = Job("a", "torch", ("run",), "gpu", keeps_compiled=False).variables(settings)
    assert "JAX_COMPILATION_CACHE_DIR" in on_gpu
    assert repeated.get("JAX_COMPILATION_CACHE_DIR") != on_gpu["JAX_COMPILATION_CACHE_DIR"]
