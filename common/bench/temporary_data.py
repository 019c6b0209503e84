"""The weights and images of a benchmark, in a folder that is deleted at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.data.folder import ImageData, Sample, read_folder
from common.network import resnet, sources, weights
from common.network.preprocessing_metadata import Preprocessing
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a temporary folder for weights and images, which is also the cache until it is deleted at the end."""
    before = os.environ.get("FINE_TUNING_CACHE")
    with tempfile.TemporaryDirectory(prefix="fine-tuning-bench-") as name:
        os.environ["FINE_TUNING_CACHE"] = name
        try:
            yield Path(name)
        finally:
            os.environ.pop("FINE_TUNING_CACHE")
            if before is not None:
                os.environ["FINE_TUNING_CACHE"] = before


def random_weights(folder: Path, spec: ExperimentSpec) -> Path:
    """Write random weights of a source network for `spec`: as fast as any others, and they need no download."""
    architecture = resnet.architecture(spec.backend, spec.model)
    classes = tuple(f"class {index}" for index in range(resnet.SOURCE_CLASSES))
    own = sources.CAFFE if architecture == "resnet50_keras" else Preprocessing()
    header = weights.Header(architecture, classes, own, "random numbers")
    path = folder / f"{architecture}.safetensors"
    arrays = resnet.initial_network(architecture, len(classes), spec.seed)
    weights.write(path, weights.Checkpoint(header, arrays))
    return path


def link_images(data: ImageData, folder: Path, steps: int, batch_size: int) -> ImageData:
    """Make class folders with links to images of `data`, spread evenly over its list, which is sorted by class.

    Args:
        data: The images.
        folder: The folder that gets `train` and `test`.
        steps: The number of full batches for training and for testing each; fewer where the images run out.
        batch_size: Images of a batch.

    Returns:
        The linked images.

    Raises:
        UserError: There are fewer images than one batch.
    """
    for split, samples in (("train", data.train), ("test", data.test)):
        count = min(steps, len(samples) // batch_size) * batch_size
        if count == 0:
            raise UserError(f"--batch-size {batch_size}: there are only {len(samples)} {split} images in {data.name}")
        for number, sample in enumerate(spread(samples, count)):
            # The name of a class in a table may be none of a folder.
            name = data.classes[sample.label].replace("/", "_")
            place = folder / split / name / f"{number:05d}{sample.path.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(sample.path.resolve())
    return read_folder(folder, progress=False)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return `count` of the samples, evenly spread over their list, which is sorted by class."""
    return [samples[index * len(samples) // count] for index in range(count)]
