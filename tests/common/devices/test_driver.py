"""Finding NVIDIA's driver, and what a run says that does not use it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from common.devices import driver
from common.devices.device import Device
from common.spec.experiment import ExperimentSpec

CPU, GPU = Device("cpu", "2 threads"), Device("gpu", "a GPU", (9, 0))


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No kernel module, no tool, no library, and nothing hidden."""
    monkeypatch.setattr(driver, "KERNEL_MODULE", tmp_path / "version")
    monkeypatch.setattr(driver, "LIBRARY", "libnosuchdriver.so.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_machine_without_a_driver() -> None:
    assert driver.find_driver() is None


def test_each_sign_of_a_driver_is_enough(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: name)
    assert driver.find_driver() == "libnosuchdriver.so.1"
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert driver.find_driver() == str(tool)
    (tmp_path / "version").touch()
    assert driver.find_driver() == str(tmp_path / "version")


@pytest.mark.parametrize(
    ("backend", "command"),
    [
        ("keras", "environment-keras -- --cuda"),
        ("jax", "environment-jax -- --cuda"),
        ("mxnet", "environment-mxnet -- --cuda"),
        ("torch", "nvidia-smi"),
    ],
)
def test_a_gpu_that_the_framework_does_not_see_is_said_in_a_line(monkeypatch, backend, command) -> None:
    monkeypatch.setattr(driver, "find_driver", lambda: "/proc/driver/nvidia/version")
    words = driver.unused_gpu(ExperimentSpec(backend=backend), CPU)
    assert words is not None
    assert "/proc/driver/nvidia/version" in words
    assert command in words
    assert "\n" not in words


@pytest.mark.parametrize(
    ("device", "found", "asked", "visible"),
    [
        (CPU, None, "auto", None),
        (GPU, "nvidia-smi", "auto", None),
        (CPU, "nvidia-smi", "cpu", None),
        (CPU, "nvidia-smi", "auto", ""),
        (CPU, "nvidia-smi", "auto", "-1"),
    ],
)
def test_nothing_is_said_where_nothing_is_wrong(monkeypatch, device, found, asked, visible) -> None:
    monkeypatch.setattr(driver, "find_driver", lambda: found)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert driver.unused_gpu(ExperimentSpec(device=asked), device) is None


@pytest.mark.parametrize(("told", "expected"), [("9.0", (9, 0)), ("12.1", (12, 1)), ("[N/A]", None), ("", None)])
def test_the_generation_is_what_nvidia_smi_tells(monkeypatch, tmp_path, told, expected) -> None:
    monkeypatch.setattr(driver, "TOOL", str(tmp_path / "tool"))
    assert driver.compute_capability.__wrapped__() is None
    (tmp_path / "tool").write_text(f"#!/bin/sh\necho '{told}'\n")
    (tmp_path / "tool").chmod(0o755)
    assert driver.compute_capability.__wrapped__() == expected
