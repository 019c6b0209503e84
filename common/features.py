"""Features computed once: where the backbone is frozen and no image is augmented, the head alone has work to repeat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common import groups, parallel, pipeline
from common.folder import Sample
from common.groups import BACKBONE_STAGES, Phase
from common.pipeline import ImageSource, Labels, Transform
from common.spec import ExperimentSpec

if TYPE_CHECKING:
    from backends.contract import Backend
    from common.fit import Watch


class BatchSource(Protocol):
    """Where an epoch's batches come from: a `common.pipeline.ImageSource`, or a FeatureStore in its place."""

    def train_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int, /
    ) -> Iterator[tuple[NDArray[np.float32], Labels]]:
        """Shuffled batches."""

    def test_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], /
    ) -> Iterator[tuple[NDArray[np.float32], Labels]]:
        """Batches in the order of the samples."""


def freezes_backbone(phase: Phase) -> bool:
    """Whether neither a parameter nor a statistic of the backbone changes in a phase."""
    return phase.trained_stages == ("head",) and phase.frozen_statistics.issuperset(BACKBONE_STAGES)


def reused(spec: ExperimentSpec, phase: Phase) -> bool:
    """Whether a phase trains the head on features that are computed once.

    Only with the shared pipeline, whose order of the samples is known here: the framework's own has its own.
    """
    # Features are kept as float32.
    allowed = spec.reuse_features == "auto" and spec.pipeline == "shared" and spec.precision != "fp64"
    return allowed and not spec.augments and freezes_backbone(phase)


def describe(spec: ExperimentSpec, phase: Phase) -> str | None:
    """What is done about features in a phase, in words; None where the backbone trains."""
    if not freezes_backbone(phase):
        return None
    if reused(spec, phase):
        return "the features of each image are computed once"
    reason = "reuse_features is never"
    if spec.precision == "fp64":
        reason = "features are kept as float32"
    if spec.pipeline == "native":
        reason = "the pipeline is native"
    if spec.augments:
        reason = "training images are augmented; --train-crop none with --no-flip would change that"
    return f"the features of each image are computed anew every epoch, as {reason}"


def notes(spec: ExperimentSpec) -> list[str]:
    """A line for each phase that trains the head alone: what is done about features."""
    described = [(phase.name, describe(spec, phase)) for phase in groups.phases(spec) if phase.epochs]
    return [f"phase {name}: {text}" for name, text in described if text]


class FeatureStore:
    """The features of every sample asked for, and the head that trains on them.

    Features are computed when they are first asked for, so that the first epoch of a phase counts their time.
    """

    def __init__(self, backend: Backend, model: Any, watch: Watch, images: ImageSource) -> None:
        self.backend, self.model, self.watch, self.images = backend, model, watch, images
        self.head = backend.head_of(model)
        self.vectors: dict[Sample, NDArray[np.float32]] = {}
        """Sample -> what the head sees of it, (features,)."""

    def train_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
    ) -> Iterator[tuple[NDArray[np.float32], Labels]]:
        """`common.pipeline.train_batches` in the same order, with features (N, features) for images."""
        self.compute(spec, transform, samples)
        order = pipeline.epoch_order(len(samples), spec.seed, epoch)
        return self.batches(spec, [samples[index] for index in order], parallel.share_to_train)

    def test_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
    ) -> Iterator[tuple[NDArray[np.float32], Labels]]:
        """`common.pipeline.test_batches`, with features (N, features) for images."""
        self.compute(spec, transform, samples)
        return self.batches(spec, samples, parallel.share_to_test)

    def batches(
        self,
        spec: ExperimentSpec,
        samples: Sequence[Sample],
        share: Callable[[Sequence[Sample], int], Sequence[Sample]],
    ) -> Iterator[tuple[NDArray[np.float32], Labels]]:
        """Batches of samples whose features are there; the last may be smaller. `share` says which of a batch are this
        process's."""
        for start in range(0, len(samples), spec.batch_size):
            chosen = samples[start : start + spec.batch_size]
            labels = np.array([sample.label for sample in chosen], np.int64)
            yield np.stack([self.vectors[sample] for sample in share(chosen, spec.devices)]), labels

    def compute(self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]) -> None:
        """Compute the features of the samples that have none yet."""
        missing = [sample for sample in samples if sample not in self.vectors]
        begin, done = time.perf_counter(), 0
        for images, labels in self.images.test_batches(spec, transform, missing):
            vectors = self.backend.features(self.model, self.backend.from_shared(images, labels)[0])
            # Of a batch that several processes share there may be more rows than images; see `common.parallel`.
            self.vectors.update(zip(missing[done : done + len(labels)], vectors[: len(labels)], strict=True))
            done += len(labels)
            self.watch.on_progress(1, f"computing features, {done / (time.perf_counter() - begin):.1f} images/s")
