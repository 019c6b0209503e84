"""One suite for all backends; each runs in its own environment, since no process may import two frameworks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import backends
from common.contract.backend import Backend, Models
from common.method import phases
from common.method.phases import Phase
from common.spec.experiment import ExperimentSpec


@pytest.fixture(scope="session")
def backend_name(request: pytest.FixtureRequest) -> str:
    named = request.config.getoption("--backend")
    installed = [name for name in backends.NAMES if backends.is_installed(name)]
    if named is None and len(installed) != 1:
        pytest.fail(f"installed backends: {installed or 'none'}; say which to test with --backend")
    return named or installed[0]


@pytest.fixture(scope="session")
def computes_on(request: pytest.FixtureRequest) -> str:
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def backend(backend_name: str, computes_on: str) -> Backend:
    loaded = backends.load(backend_name)
    loaded.prepare(ExperimentSpec(backend=backend_name, device=computes_on))
    return loaded


@pytest.fixture(autouse=True)
def skip_without_gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests marked `gpu` run where the backend sees one; the others go on where they were."""
    if request.node.get_closest_marker("gpu") is None:
        yield
        return
    loaded, name = request.getfixturevalue("backend"), request.getfixturevalue("backend_name")
    if loaded.prepare(ExperimentSpec(backend=name, device="auto")).kind != "gpu":
        pytest.skip("needs a GPU")
    yield
    loaded.prepare(ExperimentSpec(backend=name, device=request.getfixturevalue("computes_on")))


@pytest.fixture(scope="session")
def spec(backend_name: str, computes_on: str) -> ExperimentSpec:
    """A small experiment, on the CPU unless --device says otherwise."""
    # From 65 px on the last maps are 3 x 3; below, XLA has no fast convolution for them on a CPU.
    return ExperimentSpec(
        backend=backend_name, image_size=72, resize_size=80, batch_size=8, epochs=2, learning_rate=1e-4,
        device=computes_on, workers=0,
    )  # fmt: skip


@pytest.fixture
def models(backend: Backend, spec: ExperimentSpec) -> Models:
    return backend.build_models(spec)


@pytest.fixture(scope="session")
def numpy_batch() -> tuple[Any, Any]:
    """Eight smooth pictures, float32 (8, 72, 72, 3), and labels (8,)."""
    generator = np.random.default_rng(11)
    coarse = generator.standard_normal((8, 8, 8, 3)).repeat(9, axis=1).repeat(9, axis=2)
    return coarse.astype(np.float32), np.array([0, 1, 1, 0, 1, 0, 0, 1])


@pytest.fixture(scope="session")
def batch(backend: Backend, numpy_batch: tuple[Any, Any]) -> tuple[Any, Any]:
    """The same as the backend takes it."""
    return backend.from_shared(*numpy_batch)


def only_phase(spec: ExperimentSpec, **changes: Any) -> Phase:
    """The phase of an experiment that has one."""
    (phase,) = phases.phases(spec.replace(**changes))
    return phase


def largest_difference(first: Any, second: Any) -> float:
    """Relative L2 distance of two arrays."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float(np.linalg.norm(first - second) / max(np.linalg.norm(second), 1e-12))
