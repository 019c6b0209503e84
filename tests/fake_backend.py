"""A backend of a few lines of NumPy, for tests of what drives a backend: softmax regression on mean colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.contract import Device, Models
from common import fit, resnet
from common.groups import Phase
from common.spec import ExperimentSpec


class Model:
    """Arrays under ResNet-18's names, of which only the head is used, on three features."""

    def __init__(self, spec: ExperimentSpec, classes: int) -> None:
        self.arrays = resnet.initial_network("resnet18", classes, spec.seed)


def features(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=(1, 2)).astype(np.float64)


class Trainer:
    def __init__(self, model: Model, spec: ExperimentSpec, phase: Phase) -> None:
        self.model, self.rate = model, spec.learning_rate * phase.multiples["head"]
        self.sums = [0.0, 0]

    def train_step(self, images: Any, labels: Any) -> None:
        scores = logits(self.model, images).astype(np.float64)
        predictions = fit.Predictions(scores, labels)
        self.sums[0] += predictions.loss * len(labels)
        self.sums[1] += int((scores.argmax(1) == labels).sum())
        with np.errstate(all="ignore"):
            probabilities = np.exp(scores - scores.max(1, keepdims=True))
            probabilities /= probabilities.sum(1, keepdims=True)
            probabilities[np.arange(len(labels)), labels] -= 1
            head = self.model.arrays["fc.weight"]
            head[:, :3] -= (self.rate * probabilities.T @ features(images)).astype(np.float32)

    def read_sums(self) -> tuple[float, int]:
        sums, self.sums = self.sums, [0.0, 0]
        return sums[0], int(sums[1])


class FakeBackend:
    """What `common` calls of a backend."""

    Trainer = Trainer

    def prepare(self, spec: ExperimentSpec) -> Device:
        return Device("cpu", "NumPy")

    def versions(self) -> dict[str, str]:
        return {"fake": "1.0"}

    def peak_gpu_memory(self) -> None:
        return None

    def make_product(self, spec: ExperimentSpec, side: int) -> Any:
        matrix = np.ones((8, 8))
        return lambda: matrix @ matrix

    def build_models(self, spec: ExperimentSpec) -> Models:
        return Models(Model(spec, 1000), Model(spec, spec.classes), Model(spec, spec.classes))

    def head_shape(self, model: Model) -> tuple[int, ...]:
        return model.arrays["fc.weight"].shape

    def class_weight(self, model: Model, index: int) -> np.ndarray:
        return model.arrays["fc.weight"][index].copy()

    def train_fine_tuning(self, model, spec, data, param_group=True, watch=None) -> fit.History:
        return fit.fit(self, model, spec, data, param_group, watch)  # type: ignore[arg-type]

    def logits(self, model: Model, images: Any) -> np.ndarray:
        return logits(model, images)

    def from_shared(self, images: Any, labels: Any) -> tuple[Any, Any]:
        return images, labels

    def to_arrays(self, model: Model) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in model.arrays.items()}


def logits(model: Model, images: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return (features(images) @ model.arrays["fc.weight"][:, :3].T.astype(np.float64)).astype(np.float32)
