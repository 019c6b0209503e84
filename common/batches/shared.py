"""The shared input pipeline: images prepared by Pillow and NumPy, the same pixels for every framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from common.batches.prefetch import prefetch
from common.contract.experiment import Experiment
from common.data.folder import Read, Sample, read_file
from common.devices import processes
from common.preprocessing.crops import augment, crop_for_test
from common.preprocessing.random_streams import epoch_order
from common.preprocessing.transforms import Images, Labels, Transform, normalise
from common.spec.experiment import ExperimentSpec

# Largest size of the cropped test images that a run keeps in main memory, in bytes.
KEPT_BYTES = 2**30
# For each batch the indices of its samples, and the indices of those that this process loads.
Chunks = Sequence[tuple[Sequence[int], Sequence[int]]]


def train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int, read: Read = read_file
) -> Iterator[tuple[Images, Labels]]:
    """Prepare the shuffled, augmented batches of an epoch.

    Args:
        spec: The experiment, for seed, batch size, devices and workers.
        transform: Its preprocessing.
        samples: The training samples.
        epoch: Counted from 1.
        read: Returns the decoded image of a sample; threads call it at once.

    Returns:
        An iterator over float32 images (N, H, W, 3) and int64 labels (N,); the last batch may be smaller. Where several
        processes share a batch, the images are this one's (`common.devices.processes.share_to_train`), the labels
        those of all.
    """

    def load(index: int, out: Images) -> None:
        image = augment(read(samples[index], transform.presized_side), transform, spec.seed, epoch, index)
        normalise(image, transform, out)

    order = epoch_order(len(samples), spec.seed, epoch)
    chunks = [(chunk, processes.share_to_train(chunk, spec.devices)) for chunk in _chunks(order.tolist(), spec)]
    return _batches(load, [sample.label for sample in samples], chunks, spec, transform.image_size)


def test_batches(
    spec: ExperimentSpec,
    transform: Transform,
    samples: Sequence[Sample],
    crop: Callable[[Sample], Image.Image] | None = None,  # noqa: PT028
) -> Iterator[tuple[Images, Labels]]:
    """Prepare batches of all samples in their order, as for a test.

    Args:
        spec: The experiment, for batch size, devices and workers.
        transform: Its preprocessing.
        samples: The samples.
        crop: Returns the image of a sample, cropped for a test; by default it is decoded and cropped each time.

    Returns:
        An iterator over float32 images (N, H, W, 3) and int64 labels (N,). Where several processes share a batch, the
        images are this one's (`common.devices.processes.share_to_test`), the labels those of all.
    """

    def load(index: int, out: Images) -> None:
        sample = samples[index]
        image = crop(sample) if crop else crop_for_test(read_file(sample, transform.presized_side), transform)
        normalise(image, transform, out)

    chunks = [(chunk, processes.share_to_test(chunk, spec.devices)) for chunk in _chunks(range(len(samples)), spec)]
    return _batches(load, [sample.label for sample in samples], chunks, spec, transform.image_size)


class SharedBatches:
    """A source of batches by the shared pipeline.

    Test images are the same in every epoch: the second time one is asked for, it is kept cropped, up to KEPT_BYTES.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.crops: dict[Sample, Image.Image] = {}
        self.asked: set[Sample] = set()
        self.room = KEPT_BYTES

    def train(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Yield the shuffled, augmented batches of an epoch, as the backend takes them; the last may be smaller."""
        plan, data = self.experiment.plan, self.experiment.data
        for images, labels in train_batches(plan.spec, plan.transform, data.train, epoch, data.read):
            yield self.experiment.backend.from_shared(images, labels)

    def test(self, samples: Sequence[Sample]) -> Iterator[tuple[Any, Labels]]:
        """Yield batches of samples in their order, cropped at the centre: images for the backend, labels as NumPy."""
        plan = self.experiment.plan
        for images, labels in test_batches(plan.spec, plan.transform, samples, self.crop):
            yield self.experiment.backend.from_shared(images, labels)[0], labels

    def crop(self, sample: Sample) -> Image.Image:
        """Return the image cropped for a test, 8-bit RGB; threads may call it at once."""
        known = self.crops.get(sample)
        if known is not None:
            return known
        transform = self.experiment.plan.transform
        image = crop_for_test(self.experiment.data.read(sample, transform.presized_side), transform)
        if sample in self.asked and self.room > 0:
            # Pillow holds four bytes a pixel.
            self.room -= 4 * image.width * image.height
            self.crops[sample] = image
        self.asked.add(sample)
        return image


def _chunks(order: Sequence[int], spec: ExperimentSpec) -> list[Sequence[int]]:
    """Cut indices into batches; the last may be smaller."""
    return [order[start : start + spec.batch_size] for start in range(0, len(order), spec.batch_size)]


def _batches(
    load: Callable[[int, Images], None], labels: Sequence[int], chunks: Chunks, spec: ExperimentSpec, side: int
) -> Iterator[tuple[Images, Labels]]:
    """Load batches of images, ahead of their use, in threads.

    Args:
        load: Writes the image of an index to its place in the batch, (side, side, 3) float32; threads call it at once.
        labels: Labels of all samples, by index.
        chunks: For each batch the indices of its samples, and the indices of those that this process loads.
        spec: The experiment, for workers and batch size.
        side: Side of the images in pixels.

    Yields:
        Images (N, side, side, 3) float32 that this process loads, and the labels of the whole batch, int64.
    """

    def places() -> Iterator[tuple[int, Images, Images]]:
        for _, own in chunks:
            # A new array for each batch, as some frameworks go on using the memory of the one they were given.
            images = np.empty((len(own), side, side, 3), np.float32)
            yield from ((index, out, images) for index, out in zip(own, images, strict=True))

    def fill(place: tuple[int, Images, Images]) -> Images:
        index, out, images = place
        load(index, out)
        return images

    filled = prefetch(fill, places(), spec.workers, look_ahead=2 * spec.batch_size)
    for chunk, own in chunks:
        for _ in own:
            images = next(filled)
        yield images, np.array([labels[index] for index in chunk], np.int64)
