"""A backend of a few lines of NumPy, for tests of what drives a backend: softmax regression on mean colours."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from common.contract.backend import Models
from common.contract.experiment import Experiment
from common.contract.results import History, Predictions
from common.contract.watch import Watch
from common.devices.device import Device
from common.method.loss import target_table
from common.method.phases import Phase
from common.method.plan import make_plan
from common.network import resnet
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places
from common.spec.experiment import ExperimentSpec
from common.training import loop


class Model:
    """Arrays under ResNet-18's names, of which only the head is used, on three features."""

    def __init__(self, spec: ExperimentSpec, classes: int) -> None:
        self.arrays = resnet.initial_network("resnet18", classes, spec.seed)


def features(images: np.ndarray) -> np.ndarray:
    """Of images (N, H, W, 3); feature vectors (N, 3) stay as they are."""
    return (images if images.ndim == 2 else images.mean(axis=(1, 2))).astype(np.float64)


class Trainer:
    def __init__(self, model: Model, spec: ExperimentSpec, phase: Phase, class_counts: Any = None) -> None:
        self.model, self.rate = model, spec.learning_rate * phase.multiples["head"]
        self.targets = target_table(spec, class_counts)
        self.sums = [0.0, 0]

    def train_step(self, images: Any, labels: Any, rate_factor: float = 1.0) -> None:
        scores = logits(self.model, images).astype(np.float64)
        predictions = Predictions(scores, labels)
        self.sums[0] += predictions.loss * len(labels)
        self.sums[1] += int((scores.argmax(1) == labels).sum())
        with np.errstate(all="ignore"):
            probabilities = np.exp(scores - scores.max(1, keepdims=True))
            probabilities /= probabilities.sum(1, keepdims=True)
            targets = self.targets[labels]
            gradient = probabilities * targets.sum(1, keepdims=True) - targets
            head = self.model.arrays["fc.weight"]
            head[:, :3] -= (rate_factor * self.rate * gradient.T @ features(images)).astype(np.float32)

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

    def matmul_benchmark(self, spec: ExperimentSpec, side: int) -> Any:
        matrix = np.ones((8, 8))
        return lambda: matrix @ matrix

    def build_models(self, spec: ExperimentSpec) -> Models:
        return Models(Model(spec, 1000), Model(spec, spec.classes), Model(spec, spec.classes))

    def head_shape(self, model: Model) -> tuple[int, ...]:
        return model.arrays["fc.weight"].shape

    def head_row(self, model: Model, index: int) -> np.ndarray:
        return model.arrays["fc.weight"][index].copy()

    def extract_head(self, model: Model) -> Model:
        head = copy.copy(model)
        head.arrays = {name: array for name, array in self.to_arrays(model).items() if name.startswith("fc.")}
        return head

    def train_fine_tuning(self, model, spec, data, param_group=True, watch=None) -> History:
        plan = make_plan(spec, data, param_group)
        return loop.fit(Experiment(self, plan, data, watch or Watch()), model)  # type: ignore[arg-type]

    def logits(self, model: Model, images: Any) -> np.ndarray:
        return logits(model, images)

    def feature_extractor(self, model: Model) -> Any:
        return lambda images: features(images).astype(np.float32)

    def from_shared(self, images: Any, labels: Any) -> tuple[Any, Any]:
        return images, labels

    def to_device(self, spec: ExperimentSpec, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def resident_batch(self, store: np.ndarray, places: Places, frame: Frame, labels: Any) -> tuple[Any, Any]:
        first, across = places.segments[:, :, None, None]
        segments = first + across * np.arange(frame.height)[:, None] + np.arange(frame.width // SEGMENT)
        images = store[np.minimum(segments, len(store) - 1)].reshape(-1, frame.height, frame.width, 3)
        images, turned = images.transpose(0, 3, 1, 2).astype(np.float32), places.turned[:, None, None, None]
        images = np.where(turned, images.swapaxes(2, 3), images) if frame.turns else images
        for axis, length in ((places.first, frame.width), (places.second, frame.height)):
            images = resize_rows(images, *weights(axis, frame.side, length)).swapaxes(2, 3)
        images = np.where(turned, images.swapaxes(2, 3), images)
        # In the layout of the shared pipeline's, as sums depend on the order in memory.
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        images = images * np.float32(frame.scale) - np.array(frame.mean, np.float32)
        images = images / np.array(frame.std, np.float32)
        for image, (left, top, right, bottom) in zip(images, places.content.T, strict=True):
            covered = image[top:bottom, left:right].copy()
            image[...] = 0
            image[top:bottom, left:right] = covered
        return images, labels

    def to_arrays(self, model: Model) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in model.arrays.items()}

    def load_arrays(self, model: Model, arrays: dict[str, np.ndarray]) -> None:
        model.arrays.update({name: array.copy() for name, array in arrays.items()})


def logits(model: Model, images: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return (features(images) @ model.arrays["fc.weight"][:, :3].T.astype(np.float64)).astype(np.float32)


def weights(axis: np.ndarray, side: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of `length` pixels along an axis counts in each output pixel: (N, side, length), in two digits."""
    unit, start, step, reach, size = axis[:, :, None, None]
    pixels, outputs = np.arange(length), np.arange(side)[:, None]
    distance = np.abs((2 * pixels + 1) * unit - (start + step * outputs))
    counts = np.maximum(reach - distance, 0) * (pixels < size)
    total = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    high, rest = np.divmod(DIGIT * counts, total)
    low = (DIGIT * rest + total // 2) // total
    return high.astype(np.float32), low.astype(np.float32)


def resize_rows(images: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Images (N, 3, H, W) whose rows are resized by the weights, (N, 3, H, side), rounded to whole numbers."""
    high, low = (images @ digit.transpose(0, 2, 1)[:, None] for digit in (high, low))
    return np.floor((high + np.floor(low / DIGIT) + DIGIT // 2) / DIGIT)
