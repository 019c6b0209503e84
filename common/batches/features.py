"""Batches of features: where the backbone is frozen and no image is augmented, they are computed only once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from common.batches.source import Batches
from common.contract.experiment import Experiment
from common.data.folder import Sample
from common.devices import processes
from common.preprocessing import random_streams
from common.preprocessing.transforms import Labels
from common.spec.experiment import ExperimentSpec
from common.system.caches import Cache, NoRoom, cache_folder
from common.system.machine import available_cores

# Largest size of all kept features together, in bytes.
LIMIT = 2**30
# Part of the key of a cache entry; to be raised whenever the code changes the features of an image.
VERSION = 1
# Name of the file in a cache entry.
VECTORS = "features.npy"


class FeatureBatches:
    """A source of batches of features in the place of images, and the head that trains on them.

    Features are computed when they are first asked for, so that the first epoch of a phase includes their time.
    """

    def __init__(self, experiment: Experiment, model: Any, images: Batches, cache: Cache | None = None) -> None:
        """Extract the head of `model`.

        Args:
            experiment: The experiment.
            model: The network whose backbone is frozen.
            images: Batches of the images themselves.
            cache: Keeps the features that this and other runs have computed; with None none are kept.
        """
        self.experiment, self.model, self.images, self.cache = experiment, model, images, cache
        self.head = experiment.backend.extract_head(model)
        self.vectors: dict[Sample, NDArray[np.float32]] = {}
        """Sample -> its features, the head's input: (features,)."""
        self.counts = {"computed": 0, "read": 0}
        """Number of images whose features were computed, and whose features an earlier run had kept."""

    def train(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Yield the shuffled batches of an epoch, features (N, features) and labels, in the shared pipeline's order."""
        samples = self.experiment.data.train
        self.compute(samples)
        order = random_streams.epoch_order(len(samples), self.experiment.spec.seed, epoch)
        for vectors, labels in self.batches([samples[index] for index in order], processes.share_to_train):
            yield self.experiment.backend.from_shared(vectors, labels)

    def test(self, samples: Sequence[Sample]) -> Iterator[tuple[Any, Labels]]:
        """Yield batches of samples in their order: features (N, features) for the backend, labels as NumPy."""
        self.compute(samples)
        for vectors, labels in self.batches(samples, processes.share_to_test):
            yield self.experiment.backend.from_shared(vectors, labels)[0], labels

    def batches(
        self, samples: Sequence[Sample], share: Callable[[Sequence[Sample], int], Sequence[Sample]]
    ) -> Iterator[tuple[NDArray[np.float32], Labels]]:
        """Cut samples into batches of their known features.

        Args:
            samples: Samples whose features are in `vectors`.
            share: Returns this process's part of a batch, given the batch and the number of devices.

        Yields:
            Features (N, features) float32 of this process's part, and the labels of the whole batch, int64.
        """
        spec = self.experiment.spec
        for start in range(0, len(samples), spec.batch_size):
            chosen = samples[start : start + spec.batch_size]
            labels = np.array([sample.label for sample in chosen], np.int64)
            yield np.stack([self.vectors[sample] for sample in share(chosen, spec.devices)]), labels

    def compute(self, samples: Sequence[Sample]) -> None:
        """Add the features of the samples that have none yet to `vectors`, from the cache or computed."""
        missing = [sample for sample in samples if sample not in self.vectors]
        if not missing:
            return
        known = self.cache is not None and all(sample.mark for sample in missing)
        vectors = self.kept(missing) if known else self.computed(missing)
        self.vectors.update(zip(missing, vectors, strict=True))

    def are_kept(self, samples: Sequence[Sample]) -> bool:
        """Return whether the cache has the features of samples, from an earlier run."""
        return (
            self.cache is not None
            and all(sample.mark for sample in samples)
            and self.cache.find(self.key(samples)) is not None
        )

    def kept(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Return the features of samples from the cache, which keeps them once they are computed: (N, features)."""
        assert self.cache is not None
        name = self.key(samples)
        entry = self.cache.find(name)
        vectors = read_kept(entry, len(samples)) if entry else None
        if vectors is not None:
            self.counts["read"] += len(samples)
            steps = math.ceil(len(samples) / self.experiment.spec.batch_size)
            self.experiment.watch.on_progress(steps, "features of an earlier run")
            return vectors
        vectors = self.computed(samples)
        # On a full disk nothing is kept.
        with suppress(NoRoom, OSError):
            self.cache.get(
                name,
                lambda folder: np.save(folder / VECTORS, vectors),
                vectors.nbytes,
                whole=lambda entry: read_kept(entry, len(samples)) is not None,
            )
        return vectors

    def computed(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Compute the features of samples: (N, features)."""
        vectors = np.concatenate(list(self.extract(samples)))
        self.counts["computed"] += len(samples)
        return vectors

    def extract(self, samples: Sequence[Sample]) -> Iterator[NDArray[np.float32]]:
        """Yield the features of samples, computed by the backbone batch by batch: (N, features) float32."""
        compute = self.experiment.backend.feature_extractor(self.model)
        begin, done = time.perf_counter(), 0
        for images, labels in self.images.test(samples):
            # A batch that several processes share may have been padded to more rows (`common.devices.processes`).
            yield compute(images)[: len(labels)]
            done += len(labels)
            speed = done / (time.perf_counter() - begin)
            self.experiment.watch.on_progress(1, f"computing features, {speed:.1f} images/s")

    def key(self, samples: Sequence[Sample]) -> str:
        """Return the cache key of these features: SHA-256 (hex) over all that they depend on, to the last bit."""
        spec, backend = self.experiment.spec, self.experiment.backend
        settings = {
            "version": VERSION,
            "versions": backend.versions(),
            # Rounding depends on the device, the threads and the size of a batch.
            "spec": [spec.backend, spec.pipeline, spec.precision, spec.device, spec.devices, spec.batch_size],
            "device": [backend.peak_gpu_memory() is not None, platform.machine(), platform.processor()],
            "threads": [available_cores(), os.environ.get("OMP_NUM_THREADS")],
            "transform": asdict(self.experiment.plan.transform),
            # Marks from before any pixel was read: if an image changes meanwhile, no later run finds these features.
            "images": [(str(sample.path), sample.mark, repr(sample.decoding)) for sample in samples],
            "pillow": PIL.__version__,
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, array in sorted(backend.to_arrays(self.model).items()):
            if not name.startswith("fc."):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def cache_for(spec: ExperimentSpec) -> Cache | None:
    """Return the cache in which a run keeps features for later runs.

    Args:
        spec: The experiment, for `image_cache`.

    Returns:
        The cache, or None where the spec wants nothing kept or several processes work together: these must all read
        or all compute, which a run beside them could upset.
    """
    wanted = spec.image_cache and processes.world().size == 1
    return Cache(cache_folder() / "features", LIMIT) if wanted else None


def read_kept(entry: Path, count: int) -> NDArray[np.float32] | None:
    """Read the features of `count` images, (count, features) float32; return None if they are missing or damaged."""
    try:
        vectors = np.load(entry / VECTORS, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == count and vectors.dtype == np.float32 else None
