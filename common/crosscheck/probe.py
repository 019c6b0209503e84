"""Compute the numbers of one backend that the crosscheck compares, and keep them as a file of arrays and facts."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.batches import shared
from common.contract.backend import Backend
from common.contract.watch import Quiet
from common.crosscheck.scenarios import Scenario, sample
from common.data.folder import ImageData
from common.method import phases, schedules
from common.network import imagenet, resnet, sources
from common.preprocessing import transforms
from common.runs import description
from common.spec.experiment import ExperimentSpec
from common.system.files import write_atomically

Arrays = dict[str, NDArray[Any]]


def probe(
    backend: Backend, spec: ExperimentSpec, data: ImageData, steps: int, scenarios: Sequence[Scenario]
) -> tuple[dict[str, Any], Arrays]:
    """Compute the probe of one backend.

    Args:
        backend: The backend.
        spec: The base experiment; its number of classes becomes that of the data.
        data: The images.
        steps: The number of batches that each scenario trains on.
        scenarios: The ways of training.

    Returns:
        Facts, which are plain values, and arrays by name.
    """
    spec = spec.replace(classes=len(data.classes))
    device = backend.prepare(spec)
    batches = list(itertools.islice(shared_batches(spec, data), steps))
    facts, arrays = describe(backend, spec, data, batches[0])
    facts["device"] = {"kind": device.kind, "name": device.name}
    arrays.update(first_batch(backend, spec, batches[0]))
    for scenario in scenarios:
        arrays.update(lockstep(backend, scenario, spec, batches))
    arrays.update(whole_epoch(backend, spec, data))
    return facts, arrays


def shared_batches(spec: ExperimentSpec, data: ImageData) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield full batches (images, labels) of the shared pipeline without end, epoch after epoch."""
    transform = transforms.transform_for(spec)
    for epoch in itertools.count(1):
        for images, labels in shared.train_batches(spec, transform, data.train, epoch):
            if len(labels) == spec.batch_size:
                yield images, labels


def describe(
    backend: Backend, spec: ExperimentSpec, data: ImageData, batch: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[dict[str, Any], Arrays]:
    """Describe the networks before any training.

    Args:
        backend: The backend.
        spec: The experiment.
        data: The images, for the indices of the classes.
        batch: Images and labels of the shared pipeline.

    Returns:
        Facts: versions, head shapes, parameter counts, class indices, and the SHA-256 of the batch's pixels. Arrays:
        the source network's head row for hot dogs, and its logits on the batch (zero-shot).
    """
    models = backend.build_models(spec)
    names = sources.source_class_names(spec)
    index = imagenet.hotdog_index(names)
    counts = description.count_parameters(phases.phases(spec), spec, backend, models.fine_tune)
    facts = {
        "backend": spec.backend,
        "precision": spec.precision,
        "versions": backend.versions(),
        "head_shapes": {
            "source": list(backend.head_shape(models.pretrained)),
            "fine-tune": list(backend.head_shape(models.fine_tune)),
        },
        "parameters_by_stage": counts["parameters_by_stage"],
        "class_to_idx": data.class_to_idx,
        "hotdog_index": index,
        "hotdog_name": names[index],
        "pixels": hashlib.sha256(batch[0].tobytes()).hexdigest(),
    }
    images, _ = backend.from_shared(*batch)
    return facts, {
        "hotdog row": backend.head_row(models.pretrained, index),
        "zero-shot": backend.logits(models.pretrained, images),
    }


def first_batch(backend: Backend, spec: ExperimentSpec, batch: tuple[NDArray[Any], NDArray[Any]]) -> Arrays:
    """Return the logits of the fine-tuning network on a batch and its gradients by parameter, before any step."""
    model = backend.build_models(spec).fine_tune
    converted = backend.from_shared(*batch)
    arrays: Arrays = {"logits": backend.logits(model, converted[0])}
    for mode in ("train", "frozen"):
        changed = spec.replace(batch_norm=mode)
        (phase,) = phases.phases(changed)
        for name, gradient in backend.gradients(model, changed, phase, converted).items():
            arrays[f"gradient, {mode}/{name}"] = sample(gradient)
    return arrays


def lockstep(
    backend: Backend, scenario: Scenario, base: ExperimentSpec, batches: Sequence[tuple[NDArray[Any], NDArray[Any]]]
) -> Arrays:
    """Train on given batches, one step for each, so that every backend takes the same steps.

    Args:
        backend: The backend.
        scenario: The way of training.
        base: The experiment that the scenario changes.
        batches: Images and labels of the shared pipeline; the phases divide them evenly, in order.

    Returns:
        The plain loss of each step, a mean over its batch, and a sample of every parameter and every BatchNorm
        statistic after the last step.
    """
    spec = scenario.spec(base)
    models = backend.build_models(spec)
    model = models.scratch if spec.strategy == "scratch" else models.fine_tune
    chosen = phases.phases(spec)
    losses = []
    for number, phase in enumerate(chosen):
        # Class counts of 1, 2 and so on make balanced weights differ whatever the data.
        trainer = backend.Trainer(model, spec, phase, range(1, spec.classes + 1))
        share = batches[number * len(batches) // len(chosen) : (number + 1) * len(batches) // len(chosen)]
        for step, (images, labels) in enumerate(share):
            trainer.train_step(*backend.from_shared(images, labels), schedules.factor(spec, step, len(share)))
            losses.append(trainer.read_sums()[0] / len(labels))
    arrays: Arrays = {f"{scenario.name}/losses": np.array(losses)}
    for name, array in backend.to_arrays(model).items():
        kind = "statistics" if resnet.is_statistic(name) else "parameters"
        arrays[f"{scenario.name}/{kind}/{name}"] = sample(array)
    return arrays


def whole_epoch(backend: Backend, spec: ExperimentSpec, data: ImageData) -> Arrays:
    """Return logits and labels of the test images after one whole epoch, incomplete last batches included."""
    changed = spec.replace(epochs=1)
    model = backend.build_models(changed).fine_tune
    history = backend.train_fine_tuning(model, changed, data, watch=Quiet())
    assert history.test is not None
    return {"epoch/logits": history.test.logits, "epoch/labels": history.test.labels}


def write(path: Path, facts: dict[str, Any], arrays: Arrays) -> None:
    """Write a probe as .npz, with the facts as JSON in its entry `facts`."""
    stream = io.BytesIO()
    np.savez_compressed(stream, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
    write_atomically(path, stream.getvalue())


def read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """Read the facts and arrays of a probe that `write` wrote."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return json.loads(str(arrays.pop("facts"))), arrays
