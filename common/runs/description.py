"""Describe an experiment for its record and for `scripts.inspect`: phases, heads, numbers of parameters, machine."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common.contract.backend import Backend, Models
from common.contract.experiment import Experiment
from common.devices.device import Device
from common.method import feature_reuse, phases
from common.method.phases import Phase
from common.network import imagenet, lora, resnet, sources
from common.network.stages import by_stage
from common.runs import record
from common.runs.record import RunRecord
from common.spec.experiment import ExperimentSpec
from common.system.machine import available_cores


def model_of(spec: ExperimentSpec, models: Models) -> Any:
    """Return the network that an experiment trains, or, for `zero-shot`, the pretrained one that it only evaluates."""
    if spec.strategy == "zero-shot":
        return models.pretrained
    return models.scratch if spec.strategy == "scratch" else models.fine_tune


def describe_run(experiment: Experiment, device: Device, models: Models, command: Sequence[str]) -> RunRecord:
    """Return the record of a run that is about to begin.

    Args:
        experiment: The experiment, its spec and plan resolved.
        device: The device that the backend computes on.
        models: The three networks before training.
        command: The command line.

    Returns:
        The record, without results.
    """
    backend, plan, spec, data = experiment.backend, experiment.plan, experiment.spec, experiment.data
    machine = describe_machine()
    machine["versions"].update(backend.versions())
    model = model_of(spec, models)
    return RunRecord(
        spec,
        command=list(command),
        resolved={
            **asdict(plan.transform),
            "mean_learning_rate": spec.mean_learning_rate,
            "phases": describe_phases(plan.phases, spec),
        },
        data={
            **record.describe_data(data),
            "trained_images": plan.trained_images,
            "tested_images": plan.tested_images,
        },
        environment={**machine, "device": asdict(device)},
        model={
            "file": None if spec.strategy == "zero-shot" else record.MODEL,
            **describe_heads(spec, backend, models),
            **count_parameters(plan.phases, spec, backend, model),
        },
    )


def describe_phases(chosen: Sequence[Phase], spec: ExperimentSpec) -> list[dict[str, Any]]:
    """Return the phases of an experiment as the dictionaries that its record holds."""
    return [
        {
            "name": phase.name,
            "epochs": phase.epochs,
            "multiples": phase.multiples,
            "frozen_statistics": sorted(phase.frozen_statistics),
            "adapters": phase.adapters,
            "reused_features": feature_reuse.reused(spec, phase),
        }
        for phase in chosen
    ]


def describe_heads(spec: ExperimentSpec, backend: Backend, models: Models) -> dict[str, Any]:
    """Describe the head of an experiment's network and that of its source.

    Returns:
        `architecture`; `head_shape` of the network and `source_head_shape` of the source, both in the framework's own
        layout; and `hotdog_index`, the row of the source head that means hot dog. The last two are None without a
        source, and `hotdog_index` also where the source has no hot dog.
    """
    model = model_of(spec, models)
    heads: dict[str, Any] = {
        "architecture": resnet.architecture(spec.backend, spec.model),
        "head_shape": list(backend.head_shape(model)),
        "source_head_shape": None,
        "hotdog_index": None,
    }
    if models.pretrained is not None:
        names = sources.source_class_names(spec)
        heads["source_head_shape"] = list(backend.head_shape(models.pretrained))
        heads["hotdog_index"] = imagenet.reported_index(spec, names)
    return heads


def count_parameters(chosen: Sequence[Phase], spec: ExperimentSpec, backend: Backend, model: Any) -> dict[str, Any]:
    """Count an experiment's parameters: in all, by stage, and those that the last phase trains.

    Statistics of BatchNorm do not count. Adapters count among the trained parameters only, because in the end they are
    part of the convolutions.

    Args:
        chosen: All phases of the experiment.
        spec: What the user chose.
        backend: The backend that holds the network.
        model: The network.

    Returns:
        `parameters`, `parameters_by_stage` and `trained_parameters`. The last phase is the last one with epochs, or in
        an experiment without epochs the last of all; without any phase, `trained_parameters` is 0.
    """
    sizes = {name: array.size for name, array in backend.to_arrays(model).items() if not resnet.is_statistic(name)}
    stages = {stage: sum(sizes[name] for name in names) for stage, names in by_stage(sizes).items()}
    last = [phase for phase in chosen if phase.epochs or not spec.epochs][-1:]
    if any(phase.adapters for phase in last):
        adapters = lora.shapes(resnet.architecture(spec.backend, spec.model), spec.lora_rank)
        sizes.update({name: math.prod(shape) for name, shape in adapters.items()})
    return {
        "parameters": sum(stages.values()),
        "parameters_by_stage": stages,
        "trained_parameters": sum(size for phase in last for name, size in sizes.items() if phase.trains(name)),
    }


def inspect(spec: ExperimentSpec, backend: Backend, models: Models) -> dict[str, Any]:
    """Describe the three networks of an experiment before training, as plain values.

    Returns:
        The architecture, the head shapes of the networks (None for one that does not exist), the numbers of parameters,
        the phases, and under `hotdog` the index, name, L2 norm and first four values of the source head's hot dog row,
        or None where there is none.
    """
    model, chosen = model_of(spec, models), phases.phases(spec)
    heads = describe_heads(spec, backend, models)
    hotdog = None
    if heads["hotdog_index"] is not None:
        row = backend.head_row(models.pretrained, heads["hotdog_index"])
        hotdog = {
            "index": heads["hotdog_index"],
            "name": sources.source_class_names(spec)[heads["hotdog_index"]],
            "norm": float((row.astype("float64") ** 2).sum() ** 0.5),
            "first_values": [float(value) for value in row[:4]],
        }
    shapes = {
        name: list(backend.head_shape(network)) if network is not None else None
        for name, network in (
            ("source", models.pretrained),
            ("fine-tune", models.fine_tune),
            ("scratch", models.scratch),
        )
    }
    return {
        "architecture": heads["architecture"],
        "head_shapes": shapes,
        **count_parameters(chosen, spec, backend, model),
        "phases": describe_phases(chosen, spec),
        "hotdog": hotdog,
    }


def describe_machine() -> dict[str, Any]:
    """Return the record's entry on the machine and on the packages that all backends share."""
    import PIL

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": available_cores(),
        "versions": {"numpy": np.__version__, "pillow": PIL.__version__},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
