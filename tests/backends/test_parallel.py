"""Several devices give the numbers of one: losses, parameters, running statistics, features and predictions."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from common.contract.backend import Backend
from common.data.folder import ImageData
from common.system.errors import RunError, UserError
from scripts.cli.sharing import visible_gpus
from tests.parallel_process import EXPERIMENTS, ROOT, run_experiment, run_processes, small_spec

SGD = next(iter(EXPERIMENTS))
Results = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def alone(backend: Backend, backend_name: str, pictures: ImageData) -> Results:
    """Every experiment on one device, in this process."""
    return {name: run_experiment(backend, name, pictures, backend=backend_name) for name in EXPERIMENTS}


@pytest.fixture(scope="module")
def processes(backend_name: str) -> int:
    """How many processes two devices take on one machine."""
    return 2 if backend_name == "torch" else 1


@pytest.fixture(scope="module")
def together(
    backend_name: str, processes: int, pictures: ImageData, tmp_path_factory: pytest.TempPathFactory
) -> list[Results]:
    """Every experiment on two devices, as each of their processes has it."""
    folder = tmp_path_factory.mktemp("parallel") / "together"
    return run_processes(folder, backend_name, pictures, [*EXPERIMENTS], processes, devices=2)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_devices_give_the_numbers_of_one(alone: Results, together: list[Results], name: str) -> None:
    for results in together:
        check_equal(results[name], alone[name])


def test_every_process_has_the_same_numbers(together: list[Results]) -> None:
    for results in together[1:]:
        for name, arrays in results.items():
            for key, array in arrays.items():
                np.testing.assert_array_equal(array, together[0][name][key], err_msg=f"{name}, {key}")


def test_a_process_for_each_of_two_machines(backend_name, alone, pictures, tmp_path) -> None:
    if backend_name != "jax":
        pytest.skip("one machine has as many processes as several, or there is no way to several")
    names = [SGD]
    for results in run_processes(tmp_path / "machines", backend_name, pictures, names, processes=2, devices=2):
        for name in names:
            check_equal(results[name], alone[name])


SHARES = """
import jax, numpy as np
from backends.jax import models, runtime, training
from tests.parallel_process import small_spec
spec = small_spec(backend="jax", devices=2)
runtime.prepare(spec)
kernel = jax.device_put(np.zeros((512, 2), np.float32), runtime.placement(spec))
model = models.Model(None, {"Dense_0": {"kernel": kernel}}, {})
for count in (8, 7):
    placed = training.shard_batch(model, np.zeros((count, 3), np.float32), count)
    print([shard.data.shape[0] for shard in placed.addressable_shards])
"""


def test_each_device_has_its_share_only(backend_name) -> None:
    """Numbers alone do not tell: they are the same where every device computes everything."""
    if backend_name != "jax":
        pytest.skip("tests/common/devices/test_processes.py tells of processes")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.run([sys.executable, "-c", SHARES], env=variables, capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == ["[4, 4]", "[7, 7]"]


def test_statistics_of_half_a_batch_would_be_noticed(backend_name, alone, pictures, tmp_path) -> None:
    if backend_name != "torch":
        pytest.skip("has no BatchNorm of this project's for several devices")
    for results in run_processes(tmp_path / "broken", backend_name, pictures, [SGD], 2, breaks=True, devices=2):
        with pytest.raises(AssertionError):
            check_equal(results[SGD], alone[SGD])


@pytest.mark.gpu
@pytest.mark.skipif(len(visible_gpus()) < 2, reason="needs two GPUs")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_gpus_give_the_numbers_of_one(backend_name, processes, pictures, tmp_path, name) -> None:
    (one,) = run_processes(tmp_path / "one", backend_name, pictures, [name], device="gpu")
    for results in run_processes(tmp_path / "two", backend_name, pictures, [name], processes, device="gpu", devices=2):
        check_equal(results[name], one[name])


@pytest.mark.gpu
def test_more_gpus_than_there_are_are_refused(backend_name, backend, monkeypatch) -> None:
    if backend_name == "torch":
        pytest.skip("takes processes for them first")
    many = len(visible_gpus()) + 1
    with pytest.raises(UserError, match=f"devices = {many}"):
        backend.prepare(small_spec(backend=backend_name, device="gpu", devices=many, batch_size=many))


@pytest.mark.parametrize("gpus", [1, 2])
def test_fewer_gpus_than_devices_are_refused(backend_name, backend, monkeypatch, gpus) -> None:
    if backend_name == "keras":
        monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: ["one"] * gpus)
    elif backend_name == "mxnet":
        monkeypatch.setattr("backends.mxnet.runtime.count_gpus", lambda: gpus)
    else:
        pytest.skip("needs real ones")
    with pytest.raises(UserError, match=f"{gpus} GPUs?; choose --devices {gpus}"):
        backend.prepare(small_spec(backend=backend_name, device="gpu", devices=4))


def test_virtual_devices_come_first_or_never(backend_name, backend) -> None:
    if backend_name != "keras":
        pytest.skip("another framework can have more at any time, or has its own test")
    with pytest.raises(RunError, match="a process of its own"):
        backend.prepare(small_spec(backend=backend_name, devices=4))


def check_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Raise AssertionError where two results differ by more than another order of sums makes them.

    Measured in float32: losses 2e-6, logits 3e-6, and what a step adds to early convolutions 6e-3 of it, where the
    gradients of many pixels cancel. In float64 1e-13 of what was added, but 2e-7 for MXNet's statistics, in which it
    keeps a batch's share as a float32. BatchNorm over half of the batch changes losses by more than 1e-3.
    """
    precise = expected["logits"].dtype == np.float64
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["accuracy"], expected["accuracy"])
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-9 if precise else 2e-5)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-6 if precise else 5e-5)
    for key in expected:
        if key.startswith("array/"):
            distance = np.linalg.norm(found[key] - expected[key])
            moved = expected[key.replace("array/", "moved/")]
            rounding = 1e-12 if precise else 2e-7
            assert distance <= (1e-6 if precise else 3e-2) * moved + rounding * np.linalg.norm(expected[key]), key
