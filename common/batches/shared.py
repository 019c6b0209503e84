"""The shared input pipeline: Pillow and NumPy, the same pixels for every framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from common.batches.prefetch import prefetch
from common.contract.backend import Backend
from common.data.folder import Read, Sample, read_file
from common.devices import processes
from common.preprocessing.crops import augment, crop_for_test
from common.preprocessing.draws import epoch_order
from common.preprocessing.transforms import Images, Labels, Transform, normalise
from common.spec.experiment import ExperimentSpec

# What the cropped test images of a run may take of its main memory, in bytes.
KEPT_BYTES = 2**30


def train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int, read: Read = read_file
) -> Iterator[tuple[Images, Labels]]:
    """Shuffled, augmented batches: float32 images (N, H, W, 3) and int64 labels (N,); the last may be smaller.

    Where several processes share a batch, the images are this one's (`common.devices.processes.share_to_train`).
    """

    def load(index: int, out: Images) -> None:
        image = augment(read(samples[index]), transform, spec.seed, epoch, index)
        normalise(image, transform, out)

    order = epoch_order(len(samples), spec.seed, epoch)
    return _batches(load, samples, [int(index) for index in order], spec, transform, processes.share_to_train)


def test_batches(
    spec: ExperimentSpec,
    transform: Transform,
    samples: Sequence[Sample],
    read: Read = read_file,  # noqa: PT028
) -> Iterator[tuple[Images, Labels]]:
    """Batches of all samples in their order: float32 images (N, H, W, 3) and int64 labels (N,).

    Where several processes share a batch, the images are this one's (`common.devices.processes.share_to_test`).
    """
    return ImageSource(read).test_batches(spec, transform, samples)


class ImageSource:
    """Batches of images that `read` gives, through `train_batches` and `test_batches`.

    Test images are the same in every epoch: from the second time on they are kept cropped, up to KEPT_BYTES.
    """

    def __init__(self, read: Read = read_file) -> None:
        self.read = read
        self.crops: dict[tuple[Sample, Transform], Image.Image] = {}
        self.asked: set[tuple[Sample, Transform]] = set()
        self.room = KEPT_BYTES

    def train_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
    ) -> Iterator[tuple[Images, Labels]]:
        """See `train_batches`."""
        return train_batches(spec, transform, samples, epoch, self.read)

    def test_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
    ) -> Iterator[tuple[Images, Labels]]:
        """See `test_batches`."""

        def load(index: int, out: Images) -> None:
            normalise(self.crop(samples[index], transform), transform, out)

        return _batches(load, samples, range(len(samples)), spec, transform, processes.share_to_test)

    def on_device(self, backend: Backend, images: Images, labels: Labels) -> tuple[Any, Any]:
        """A batch as the backend takes it."""
        return backend.from_shared(images, labels)

    def crop(self, sample: Sample, transform: Transform) -> Image.Image:
        """The image cropped for a test, 8-bit RGB; threads may call it at once."""
        known = self.crops.get((sample, transform))
        if known is not None:
            return known
        image = crop_for_test(self.read(sample), transform)
        if (sample, transform) in self.asked and self.room > 0:
            # Pillow holds four bytes a pixel.
            self.room -= 4 * image.width * image.height
            self.crops[sample, transform] = image
        self.asked.add((sample, transform))
        return image


def _batches(
    load: Callable[[int, Images], None],
    samples: Sequence[Sample],
    order: Sequence[int],
    spec: ExperimentSpec,
    transform: Transform,
    share: Callable[[Sequence[int], int], Sequence[int]],
) -> Iterator[tuple[Images, Labels]]:
    """Batches whose images `load(index, out)` writes to their places in them; `share` says which are this process's."""
    chunks = [order[start : start + spec.batch_size] for start in range(0, len(order), spec.batch_size)]
    shares = [share(chunk, spec.devices) for chunk in chunks]

    def places() -> Iterator[tuple[int, Images, Images]]:
        for own in shares:
            # A new array each time: some frameworks go on using the memory of the one they were given.
            images = np.empty((len(own), transform.image_size, transform.image_size, 3), np.float32)
            yield from ((index, out, images) for index, out in zip(own, images, strict=True))

    def fill(place: tuple[int, Images, Images]) -> Images:
        index, out, images = place
        load(index, out)
        return images

    filled = prefetch(fill, places(), spec.workers, look_ahead=2 * spec.batch_size)
    for chunk, own in zip(chunks, shares, strict=True):
        for _ in own:
            images = next(filled)
        yield images, np.array([samples[index].label for index in chunk], np.int64)
