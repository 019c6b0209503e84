"""Keras and MXNet over two devices in one process: the numbers of one device.

PyTorch and JAX share a batch in ways of their own and have tests of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from common import groups, resnet
from common.errors import RunError, UserError
from common.fit import Quiet
from common.folder import ImageData, read_folder
from common.spec import ExperimentSpec
from tests.backends.conftest import largest_difference

# Eleven images in batches of 8: the last three do not divide. Keras compiles such a step apart, so one case has it.
INCOMPLETE, FULL = (8, 3), (8, 8)
CASES: dict[str, dict[str, Any]] = {
    # In float64, where rounding hides nothing.
    "momentum, mean": {
        "precision": "fp64", "optimizer": "momentum", "loss_reduction": "mean", "learning_rate": 1e-3,
        "weight_decay": 0.1, "class_weights": "balanced", "label_smoothing": 0.1,
    },
    # The whole loop, on features that are computed once, with plain descent.
    "loop": {"strategy": "feature-extraction", "train_crop": "none", "flip": False, "epochs": 2, "learning_rate": 1e-3},
    "lora, adam": {"strategy": "lora", "optimizer": "adam", "learning_rate": 1e-4},
}  # fmt: skip


@pytest.fixture(scope="module")
def replicating(backend_name: str) -> str:
    if backend_name not in ("keras", "mxnet"):
        pytest.skip("shares a batch in another way")
    return backend_name


@pytest.fixture(scope="module")
def results(replicating: str, pictures: ImageData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `main` found. In a process of its own: TensorFlow makes virtual devices before it starts, or never."""
    path = tmp_path_factory.mktemp("replicas") / "results.npz"
    root = Path(pictures.train[0].path).parents[2]
    process = subprocess.run(
        [sys.executable, "-m", "tests.backends.test_replicas", replicating, str(root), str(path)],
        capture_output=True, text=True, timeout=600, env=dict(os.environ),
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def main(backend_name: str, root: str, path: str) -> None:
    """Every case with two devices and with one."""
    backend = backends.load(backend_name)
    spec = ExperimentSpec(
        backend=backend_name, image_size=72, resize_size=80, batch_size=8, epochs=1, device="cpu", workers=0
    )  # fmt: skip
    found: dict[str, Any] = {"name": backend.prepare(spec.replace(devices=2)).name}
    data = read_folder(Path(root), progress=False)
    for devices in (2, 1):
        for case, changes in CASES.items():
            changed = spec.replace(devices=devices, **changes)
            backend.prepare(changed)
            arrays = loop(backend, changed, data) if case == "loop" else steps(backend, changed)
            found.update({f"{devices}/{case}/{name}": array for name, array in arrays.items()})
    np.savez(path, **found)


def batches(sizes: tuple[int, ...]) -> list[tuple[Any, Any]]:
    """Smooth pictures, float32, and labels."""
    generator = np.random.default_rng(11)
    coarse = generator.standard_normal((sum(sizes), 8, 8, 3)).repeat(9, axis=1).repeat(9, axis=2)
    images, labels = coarse.astype(np.float32), generator.integers(0, 2, sum(sizes))
    ends = np.cumsum(sizes)[:-1]
    return list(zip(np.split(images, ends), np.split(labels, ends), strict=True))


def steps(backend: Any, spec: ExperimentSpec) -> dict[str, Any]:
    """Gradients, sums after each step, then the network, how far apart its copies are, and what it says."""
    (phase,) = groups.phases(spec)
    model = backend.build_models(spec).fine_tune
    given = [backend.from_shared(*batch) for batch in batches(INCOMPLETE if spec.precision == "fp64" else FULL)]
    found = {f"before/{name}": array for name, array in backend.to_arrays(model).items()}
    for number, batch in enumerate(given if spec.precision == "fp64" else ()):
        gradients = backend.gradients(model, spec, phase, *batch, class_counts=[3, 9])
        found.update({f"gradients/{number}/{name}": array for name, array in gradients.items()})
    trainer = backend.Trainer(model, spec, phase, class_counts=[3, 9])
    sums = []
    for batch in given:
        trainer.train_step(*batch)
        sums.append(trainer.read_sums())
    found.update({f"after/{name}": array for name, array in backend.to_arrays(model).items()})
    found["sums"] = np.array(sums)
    found["copies"] = np.array([len(copies) for copies in copies_of(spec.backend, model)])
    found["apart"] = np.array([np.abs(copies - copies[0]).max() for copies in copies_of(spec.backend, model)])
    for number, (images, _) in enumerate(given):
        found[f"logits/{number}"] = backend.logits(model, images)
        if spec.precision == "fp64":
            found[f"features/{number}"] = backend.features(model, images)
    return found


def copies_of(backend_name: str, model: Any) -> list[Any]:
    """Every parameter and running statistic on all devices, each (devices, ...)."""
    if backend_name == "keras":
        from backends.keras.weights import named_variables

        variables = [variable.value for variable in named_variables(model).values()]
        return [np.stack([copy.numpy() for copy in getattr(v, "values", [v])]) for v in variables]
    from backends.mxnet.weights import named_parameters

    return [np.stack([copy.asnumpy() for copy in p.list_data()]) for p in named_parameters(model).values()]


def loop(backend: Any, spec: ExperimentSpec, data: ImageData) -> dict[str, Any]:
    """Metrics of the epochs and the last test logits: 22 training and 14 test images in batches of 8."""
    model = backend.build_models(spec).fine_tune
    history = backend.train_fine_tuning(model, spec, data, watch=Quiet())
    metrics = [(m.loss, m.train_accuracy, m.test_loss, m.test_accuracy) for m in history.epochs]
    return {"metrics": np.array(metrics), "logits": history.test.logits}


@pytest.mark.parametrize("case", [case for case in CASES if case != "loop"])
def test_steps_are_those_of_one_device(results, case) -> None:
    two, one = (
        {name.removeprefix(start): array for name, array in results.items() if name.startswith(start)}
        for start in (f"2/{case}/", f"1/{case}/")
    )
    assert two.keys() == one.keys()
    assert set(two["copies"]) == {2}
    assert set(one["copies"]) == {1}
    assert two["apart"].max() == 0
    np.testing.assert_allclose(two["sums"], one["sums"], rtol=1e-5)
    # Sums over shares round apart, and Adam's first steps, which see only signs, make much of it in float32. In float64
    # MXNet keeps a batch's share of the statistics in float32.
    share = 1e-6 if CASES[case].get("precision") == "fp64" else 1e-2
    for name in resnet.shapes("resnet18"):
        start, expected, array = (
            arrays[name].astype(np.float64)
            for arrays, name in ((one, f"before/{name}"), (one, f"after/{name}"), (two, f"after/{name}"))
        )
        tolerance = share * np.linalg.norm(expected - start) + 2e-5 * share * np.linalg.norm(start)
        assert np.linalg.norm(array - expected) <= tolerance, name
    for name in filter(lambda name: name.startswith(("logits", "features", "gradients")), one):
        assert two[name].shape == one[name].shape
        assert largest_difference(two[name], one[name]) < 1e-4, name


def test_the_whole_loop_is_that_of_one_device(results) -> None:
    np.testing.assert_allclose(results["2/loop/metrics"], results["1/loop/metrics"], rtol=1e-4)
    assert largest_difference(results["2/loop/logits"], results["1/loop/logits"]) < 1e-4


def test_the_device_says_how_many(results) -> None:
    assert "2 virtual devices" in str(results["name"])


def test_fewer_gpus_than_devices(replicating, backend, spec, monkeypatch) -> None:
    if replicating == "keras":
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one"])
    else:
        monkeypatch.setattr("backends.mxnet.runtime.count_gpus", lambda: 1)
    with pytest.raises(UserError, match="1 GPU; choose --devices 1"):
        backend.prepare(spec.replace(device="gpu", devices=2))


def test_virtual_devices_come_first_or_never(replicating, backend, spec, batch) -> None:
    if replicating != "keras":
        pytest.skip("has as many as one asks for")
    with pytest.raises(RunError, match="a process of its own"):
        backend.prepare(spec.replace(devices=4))


if __name__ == "__main__":
    main(*sys.argv[1:])
