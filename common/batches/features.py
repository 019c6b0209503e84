"""Features computed once: where the backbone is frozen and no image is augmented, the head trains on them."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
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
from common.preprocessing import draws
from common.preprocessing.transforms import Labels
from common.spec.experiment import ExperimentSpec
from common.system.caches import cache_folder
from common.system.files import write_atomically
from common.system.machine import available_cores

# The most bytes that all kept features may take.
LIMIT = 2**30
# Counts up when the features of an image change.
VERSION = 1


class FeatureBatches:
    """Batches of features in the place of images, and the head that trains on them.

    Features are computed when they are first asked for, so that the first epoch of a phase counts their time.
    """

    def __init__(self, experiment: Experiment, model: Any, images: Batches, folder: Path | None = None) -> None:
        """Extract the head of `model`.

        Args:
            experiment: The experiment.
            model: The network whose backbone is frozen.
            images: Batches of the images themselves.
            folder: Where features lie that this and other runs have computed; None keeps none.
        """
        self.experiment, self.model, self.images, self.folder = experiment, model, images, folder
        self.head = experiment.backend.extract_head(model)
        self.vectors: dict[Sample, NDArray[np.float32]] = {}
        """Sample -> what the head sees of it, (features,)."""
        self.counts = {"computed": 0, "read": 0}
        """Images whose features were computed, and whose features another run had left."""

    def train(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Yield batches (N, features) in the order of `common.batches.source.Batches.train`."""
        samples = self.experiment.data.train
        self.compute(samples)
        order = draws.epoch_order(len(samples), self.experiment.spec.seed, epoch)
        for vectors, labels in self.batches([samples[index] for index in order], processes.share_to_train):
            yield self.experiment.backend.from_shared(vectors, labels)

    def test(self, samples: Sequence[Sample]) -> Iterator[tuple[Any, Labels]]:
        """Yield batches (N, features) in the order of `common.batches.source.Batches.test`."""
        self.compute(samples)
        for vectors, labels in self.batches(samples, processes.share_to_test):
            yield self.experiment.backend.from_shared(vectors, labels)[0], labels

    def batches(
        self, samples: Sequence[Sample], share: Callable[[Sequence[Sample], int], Sequence[Sample]]
    ) -> Iterator[tuple[NDArray[np.float32], Labels]]:
        """Yield batches of samples whose features are there; `share` says which of a batch are this process's."""
        spec = self.experiment.spec
        for start in range(0, len(samples), spec.batch_size):
            chosen = samples[start : start + spec.batch_size]
            labels = np.array([sample.label for sample in chosen], np.int64)
            yield np.stack([self.vectors[sample] for sample in share(chosen, spec.devices)]), labels

    def compute(self, samples: Sequence[Sample]) -> None:
        """Read or compute the features of the samples that have none yet."""
        missing = [sample for sample in samples if sample not in self.vectors]
        if not missing:
            return
        known = self.folder is not None and all(sample.mark for sample in missing)
        file = self.folder / f"{self.key(missing)}.npy" if self.folder and known else None
        vectors = read_kept(file, len(missing)) if file else None
        if vectors is not None:
            self.counts["read"] += len(missing)
            steps = math.ceil(len(missing) / self.experiment.spec.batch_size)
            self.experiment.watch.on_progress(steps, "features of an earlier run")
        else:
            vectors = np.concatenate(list(self.extract(missing)))
            self.counts["computed"] += len(missing)
            if file:
                write_kept(file, vectors)
        self.vectors.update(zip(missing, vectors, strict=True))

    def extract(self, samples: Sequence[Sample]) -> Iterator[NDArray[np.float32]]:
        """Yield the features of samples, computed batch by batch: (N, features)."""
        compute = self.experiment.backend.feature_extractor(self.model)
        begin, done = time.perf_counter(), 0
        for images, labels in self.images.test(samples):
            # A batch that several processes share may have more rows than images (`common.devices.processes`).
            yield compute(images)[: len(labels)]
            done += len(labels)
            speed = done / (time.perf_counter() - begin)
            self.experiment.watch.on_progress(1, f"computing features, {speed:.1f} images/s")

    def key(self, samples: Sequence[Sample]) -> str:
        """Return the name of the file of these features: SHA-256 over all that they depend on, to the last bit."""
        spec, backend = self.experiment.spec, self.experiment.backend
        settings = {
            "version": VERSION,
            "versions": backend.versions(),
            # Rounding depends on the device, the threads and the size of a batch.
            "spec": [spec.backend, spec.pipeline, spec.precision, spec.device, spec.devices, spec.batch_size],
            "device": [backend.peak_gpu_memory() is not None, platform.machine(), platform.processor()],
            "threads": [available_cores(), os.environ.get("OMP_NUM_THREADS")],
            "transform": asdict(self.experiment.plan.transform),
            # As they were before a pixel was read: of one that changes meanwhile no later run finds these features.
            "images": [(str(sample.path), sample.mark) for sample in samples],
            "pillow": PIL.__version__,
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, array in sorted(backend.to_arrays(self.model).items()):
            if not name.startswith("fc."):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def folder_for(spec: ExperimentSpec) -> Path | None:
    """Where a run keeps features for later ones; None where the spec wants nothing kept.

    Several processes keep none: they must all read or all compute, which a run beside them could upset.
    """
    return cache_folder() / "features" if spec.image_cache and processes.world().size == 1 else None


def read_kept(file: Path, count: int) -> NDArray[np.float32] | None:
    """The features of `count` images, (count, features); None where there is no such file, or a damaged one."""
    try:
        vectors = np.load(file, allow_pickle=False)
        # The date of the last use, by which `write_kept` makes room.
        os.utime(file)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == count and vectors.dtype == np.float32 else None


def write_kept(file: Path, vectors: NDArray[np.float32]) -> None:
    """Write features, and delete the longest unused files beyond LIMIT. On a full disk nothing is kept."""
    buffer = io.BytesIO()
    np.save(buffer, vectors)
    try:
        write_atomically(file, buffer.getvalue())
        files = sorted(file.parent.glob("*.npy"), key=lambda path: path.stat().st_mtime)
        while len(files) > 1 and sum(path.stat().st_size for path in files) > LIMIT:
            files.pop(0).unlink(missing_ok=True)
    # Another run may have made room at the same time.
    except OSError:
        return
