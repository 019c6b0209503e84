"""Which precision `auto` means, and what the record says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.devices import precision
from common.devices.device import Device
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

CPU = Device("cpu", "2 threads")


@pytest.mark.parametrize(
    ("flags", "chosen", "words"),
    [
        ("avx2 avx512_bf16 amx_bf16 amx_tile", "bf16", "AMX"),
        ("avx2 avx512_bf16", "fp32", "AVX512-BF16 without AMX"),
        ("avx2", "fp32", "no bfloat16"),
        ("", "fp32", "no bfloat16"),
    ],
)
def test_auto_on_a_cpu_is_what_the_processor_is_fast_at(monkeypatch, flags, chosen, words) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags.split()))
    spec, reason = precision.resolve(ExperimentSpec(precision="auto"), CPU)
    assert spec.precision == chosen
    assert words in reason


@pytest.mark.parametrize(
    ("capability", "chosen"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp32"), (None, "fp32")]
)
def test_auto_on_a_gpu_begins_with_ampere(capability, chosen) -> None:
    spec, reason = precision.resolve(ExperimentSpec(precision="auto"), Device("gpu", "a GPU", capability))
    assert spec.precision == chosen
    assert "compute capability" in reason


@pytest.mark.parametrize("device", [CPU, Device("gpu", "a Turing", (7, 5)), Device("gpu", "unknown")])
def test_tf32_is_refused_where_there_is_none(device) -> None:
    with pytest.raises(UserError, match=f"Ampere on.*{device.name}.*--precision fp32"):
        precision.resolve(ExperimentSpec(precision="tf32"), device)


def test_tf32_is_taken_where_there_is_one() -> None:
    spec, reason = precision.resolve(ExperimentSpec(precision="tf32"), Device("gpu", "an Ampere", (8, 0)))
    assert (spec.precision, reason) == ("tf32", "as the spec says")
    assert precision.parameter_type(spec) == "float32"


def test_auto_in_mxnet_is_float32() -> None:
    spec, reason = precision.resolve(ExperimentSpec(backend="mxnet", precision="auto"), Device("gpu", "a GPU", (9, 0)))
    assert spec.precision == "fp32"
    assert "MXNet" in reason


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp64"])
def test_what_is_asked_for_stays(name) -> None:
    spec, reason = precision.resolve(ExperimentSpec(precision=name), CPU)
    assert (spec.precision, reason) == (name, "as the spec says")
    assert precision.parameter_type(spec) == ("float64" if name == "fp64" else "float32")


def test_auto_has_to_be_settled_first() -> None:
    with pytest.raises(RuntimeError, match="resolve"):
        precision.parameter_type(ExperimentSpec(precision="auto"))


def test_mxnet_refuses_bf16() -> None:
    with pytest.raises(UserError, match="--precision fp32"):
        ExperimentSpec(backend="mxnet", precision="bf16")


def test_flags_are_read_from_linux(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert precision.cpu_flags(file) == {"fpu", "amx_bf16"}
    assert precision.cpu_flags(tmp_path / "missing") == frozenset()
