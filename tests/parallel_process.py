"""Small experiments, and a process that runs them on several devices: `python -m tests.parallel_process ...`.

A process of its own, since frameworks take the number of virtual devices of a CPU only before they start.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import backends
from common.contract.backend import Backend
from common.contract.watch import Silent
from common.data.folder import ImageData, read_folder
from common.devices.processes import World
from common.network import resnet
from common.spec.experiment import ExperimentSpec

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 240

# Number of training images, and what is not as in `small_spec`. In batches of 8 for two devices, 11 images leave 3 over
# and 7 test images make no whole batch: neither can be shared. The others have full batches, which compile once.
EXPERIMENTS: dict[str, tuple[int, dict[str, Any]]] = {
    # In float64, where rounding hides nothing.
    "sgd, all learns, incomplete batch": (11, {"precision": "fp64"}),
    "momentum, two phases, some statistics frozen": (8, {
        "optimizer": "momentum", "strategy": "warm-up", "warm_up_epochs": 1, "epochs": 3, "batch_norm": "frozen_early",
        "loss_reduction": "mean", "learning_rate": 1e-3, "class_weights": "balanced", "label_smoothing": 0.1,
    }),
    "adam, adapters, statistics frozen": (8, {
        "optimizer": "adam", "strategy": "lora", "loss_reduction": "mean", "learning_rate": 1e-3, "epochs": 2,
    }),
    "adam, features computed once, incomplete batch": (11, {
        "optimizer": "adam", "strategy": "feature-extraction", "train_crop": "none", "flip": False,
        "loss_reduction": "mean", "learning_rate": 1e-3, "epochs": 2,
    }),
}  # fmt: skip
PARAMETERS = (
    "conv1.weight",
    "bn1.weight",
    "layer2.0.downsample.0.weight",
    "layer4.1.conv2.weight",
    "fc.weight",
    "fc.bias",
)


def small_spec(**changes: Any) -> ExperimentSpec:
    """A small experiment on the CPU."""
    return ExperimentSpec(
        image_size=72, resize_size=80, batch_size=8, epochs=1, learning_rate=1e-4, device="cpu",
        workers=0, image_cache=False,
    ).replace(**changes)  # fmt: skip


def run_experiment(backend: Backend, name: str, data: ImageData, /, **changes: Any) -> dict[str, np.ndarray]:
    """What an experiment leaves: metrics by epoch, predictions, some parameters and all statistics, and how much
    training moved them (L2). `data` are the fixture `pictures`."""
    count, own = EXPERIMENTS[name]
    spec = small_spec(**own, **changes)
    data = dataclasses.replace(data, train=data.train[::2][-count:], test=data.test[::2])
    backend.prepare(spec)
    model = backend.build_models(spec).fine_tune
    before = backend.to_arrays(model)
    history = backend.train_fine_tuning(model, spec, data, watch=Silent())
    arrays = backend.to_arrays(model)
    kept = [name for name in arrays if name in PARAMETERS or resnet.is_statistic(name)]
    assert history.test is not None
    return {
        "loss": np.array([epoch.loss for epoch in history.epochs]),
        "accuracy": np.array([epoch.train_accuracy for epoch in history.epochs]),
        "logits": history.test.logits,
        **{f"array/{name}": arrays[name] for name in kept},
        **{f"moved/{name}": np.linalg.norm(arrays[name] - before[name]) for name in kept},
    }


def run_processes(
    folder: Path,
    backend: str,
    data: ImageData,
    names: Sequence[str],
    processes: int = 1,
    breaks: bool = False,
    **changes: Any,
) -> list[dict[str, dict[str, np.ndarray]]]:
    """Run experiments in fresh processes that work together; for each process what it has of every experiment.

    breaks: whether BatchNorm sees its own process's images only, as without this project's care (torch).
    """
    folder.mkdir()
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    started = []
    for rank in range(processes):
        world = World(rank, processes, rank, processes, f"localhost:{port}")
        command = [
            sys.executable, "-P", "-m", "tests.parallel_process", "--backend", backend, "--data", str(data.root),
            "--output", str(folder / f"{rank}.npz"), "--experiments", *names,
            "--changes", *(f"{name}={value}" for name, value in changes.items()),
            *(["--break-batch-norm"] if breaks else []),
        ]  # fmt: skip
        variables = {**own, **(world.variables() if processes > 1 else {}), "PYTHONPATH": str(ROOT)}
        log = (folder / f"{rank}.log").open("w")
        started.append(subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    logs = "\n".join((folder / f"{rank}.log").read_text() for rank in range(processes))
    assert codes == [0] * processes, logs
    results = []
    for rank in range(processes):
        stored = np.load(folder / f"{rank}.npz")
        results.append(
            {name: {key.split("|")[1]: stored[key] for key in stored if key.split("|")[0] == name} for name in names}
        )
    return results


def main() -> None:
    """Run the experiments that the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=backends.NAMES)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--experiments", nargs="+")
    parser.add_argument("--changes", nargs="*")
    parser.add_argument("--break-batch-norm", action="store_true")
    options = parser.parse_args()
    changes = {
        name: int(value) if value.isdecimal() else value for name, value in (c.split("=") for c in options.changes)
    }
    backend, data = backends.load(options.backend), read_folder(options.data, progress=False)
    if options.break_batch_norm:
        from torch import nn

        from backends.torch.layers import BatchNorm

        BatchNorm.forward = nn.BatchNorm2d.forward
    results = {}
    for name in options.experiments:
        found = run_experiment(backend, name, data, backend=options.backend, **changes)
        results |= {f"{name}|{key}": value for key, value in found.items()}
    np.savez(options.output, **results)


if __name__ == "__main__":
    main()
