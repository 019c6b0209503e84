"""The resident pipeline: decoded images are copied to the device's memory once, and each batch is made there.

Where the shared pipeline resizes with Pillow, a backend multiplies with two matrices, one along each axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.batches.prefetch import prefetch
from common.contract.experiment import Experiment
from common.data.folder import ImageData, Sample
from common.data.images import UnreadableImage, upright_size
from common.method.plan import Plan
from common.preprocessing import crops, random_streams
from common.preprocessing.crops import Cut
from common.preprocessing.resampling import DIGIT, SEGMENT, Frame, Places, places_of, segments_across
from common.preprocessing.transforms import Labels, Transform
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.system.machine import gibibytes

LIMIT = "FINE_TUNING_RESIDENT_GIB"
DEFAULT_LIMIT_GIB = 8.0


@dataclass(frozen=True)
class Layout:
    """The places of an experiment's images in one array of segments (`common.preprocessing.resampling.SEGMENT`)."""

    places: dict[Sample, tuple[int, int, int]]
    """Sample -> its first segment, and its width and height in pixels."""
    segments: int
    """Number of segments in the array."""
    height: int
    """The largest height of an image, in pixels."""
    width: int
    """The largest width of an image, in pixels, rounded up to whole segments."""

    @property
    def bytes(self) -> int:
        """Size of the array in bytes, with the unused pixels at the ends of rows."""
        return self.segments * SEGMENT * 3


def lay_out(spec: ExperimentSpec, transform: Transform, data: ImageData) -> Layout:
    """Give a place to every image that the experiment looks at.

    Args:
        spec: The experiment.
        transform: Its preprocessing.
        data: Its data; without epochs the training images get no place.

    Returns:
        The layout of the array.

    Raises:
        UserError: Pixels and the work on a batch need more of the device's memory than FINE_TUNING_RESIDENT_GIB (8 GiB
            unless set), or an image is too long (`check_size`).
    """
    samples = tuple(dict.fromkeys((*(data.train if spec.epochs else ()), *data.validation, *data.test)))
    places, segments = {}, 0
    for sample in samples:
        width, height = upright_size(sample.path, transform.presized_side, sample.decoding)
        check_size(sample, width, height, transform)
        places[sample] = segments, width, height
        segments += height * segments_across(width)
    sizes = [(height, segments_across(width) * SEGMENT) for _, width, height in places.values()]
    layout = Layout(places, segments, *(max(side) for side in zip(*sizes, strict=True)))
    limit, work = gibibytes(LIMIT, DEFAULT_LIMIT_GIB), batch_bytes(spec, transform, layout)
    if layout.bytes + work > limit:
        largest = max(samples, key=lambda sample: places[sample][1] * places[sample][2])
        _, width, height = places[largest]
        raise UserError(
            f"pipeline = resident: {layout.bytes / 2**30:.1f} GiB of pixels and {work / 2**30:.1f} GiB for the work on "
            f"a batch are more than {limit / 2**30:.1f} GiB; the largest image is {largest.name}, {width} x {height} "
            f"px. Choose --pipeline shared, or set {LIMIT} to what the device has room for"
        )
    return layout


def check_size(sample: Sample, width: int, height: int, transform: Transform) -> None:
    """Raise UserError for an image whose resampling coefficients a backend could not compute in 32-bit integers."""
    long = max(width, height)
    resized = max(crops.resized_for_test((width, height), transform))
    # Bounds of the largest intermediate values: DIGIT times the sum of the weights, and the middle of the last pixel.
    weights = 2 * long**2 / transform.image_size + 2 * resized
    if max((DIGIT + 1) * weights, 2 * (long + 1) * resized) >= 2**31:
        raise UserError(
            f"pipeline = resident: {sample.name} is too long for it, {width} x {height} px; choose --pipeline shared"
        )


def batch_bytes(spec: ExperimentSpec, transform: Transform, layout: Layout) -> int:
    """Estimate the memory that it takes to make a batch of the largest images.

    A pixel's value takes 9 bytes, once as an 8-bit value and twice as float32; a resampling coefficient takes 32, as a
    few whole numbers.

    Args:
        spec: The experiment, for its batch size.
        transform: Its preprocessing.
        layout: The places of its images.

    Returns:
        The size in bytes.
    """
    pixels, side = 3 * layout.height * layout.width, max(layout.height, layout.width)
    return min(spec.batch_size, len(layout.places)) * (9 * pixels + 32 * transform.image_size * side)


def describe(plan: Plan, data: ImageData) -> dict[str, Any]:
    """Return the record's entry on the images on the device, their number and bytes; raise UserError as `lay_out`."""
    layout = lay_out(plan.spec, plan.transform, data)
    return {"images": len(layout.places), "bytes": layout.bytes}


def pack(layout: Layout, data: ImageData, transform: Transform, workers: int) -> NDArray[np.uint8]:
    """Decode all images into one array.

    Args:
        layout: The places of the images.
        data: Their data set.
        transform: The preprocessing, for the channel order of the weights and the side to which images are reduced.
        workers: Number of threads that decode.

    Returns:
        The pixels, (segments, SEGMENT, 3) uint8, in the channel order of the weights; 0 where no image lies. An image
        whose size is no longer that of the layout raises UnreadableImage.
    """
    whole = np.zeros((layout.segments, SEGMENT, 3), np.uint8)

    def put(sample: Sample) -> None:
        first, width, height = layout.places[sample]
        pixels = np.asarray(data.read(sample, transform.presized_side))
        if pixels.shape != (height, width, 3):
            raise UnreadableImage(sample.path, "changed while it was read")
        across = segments_across(width)
        rows = whole[first : first + height * across].reshape(height, across * SEGMENT, 3)
        rows[:, :width] = pixels[..., ::-1] if transform.channel_order == "BGR" else pixels

    for _ in prefetch(put, layout.places, workers, look_ahead=2 * workers):
        pass
    return whole


class ResidentBatches:
    """A source of batches made on the device from images in its memory, in the shared pipeline's order and draws."""

    def __init__(self, experiment: Experiment) -> None:
        plan = experiment.plan
        self.experiment = experiment
        self.layout = lay_out(plan.spec, plan.transform, experiment.data)
        packed = pack(self.layout, experiment.data, plan.transform, plan.spec.workers)
        self.store = experiment.backend.to_device(plan.spec, packed)

    def train(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Yield the shuffled, augmented batches of an epoch, made on the device; the last may be smaller."""
        plan, samples = self.experiment.plan, self.experiment.data.train

        def cut(index: int) -> Cut:
            return crops.training_cut(self.size(samples[index]), plan.transform, plan.spec.seed, epoch, index)

        order = random_streams.epoch_order(len(samples), plan.spec.seed, epoch)
        for places, frame, labels in self.places(samples, order.tolist(), cut):
            yield self.experiment.backend.resident_batch(self.store, places, frame, labels)

    def test(self, samples: Sequence[Sample]) -> Iterator[tuple[Any, Labels]]:
        """Yield batches of samples in order, cropped at the centre: images made on the device, labels as NumPy."""

        def cut(index: int) -> Cut:
            return crops.test_cut(self.size(samples[index]), self.experiment.plan.transform)

        for places, frame, labels in self.places(samples, range(len(samples)), cut):
            yield self.experiment.backend.resident_batch(self.store, places, frame, labels)[0], labels

    def size(self, sample: Sample) -> tuple[int, int]:
        """Return width and height of an image in pixels."""
        return self.layout.places[sample][1:]

    def places(
        self, samples: Sequence[Sample], order: Sequence[int], cut: Callable[[int], Cut]
    ) -> Iterator[tuple[Places, Frame, Labels]]:
        """Work out places and labels of batches, a little ahead of their use.

        Args:
            samples: The samples.
            order: Indices into `samples`, in the order of the batches.
            cut: Returns the cut of the sample of an index.

        Returns:
            An iterator over the batches: the places of the images, the frame that holds them, their labels (N,) int64.
        """
        spec, transform = self.experiment.spec, self.experiment.plan.transform

        def batch(start: int) -> tuple[Places, Frame, Labels]:
            chosen = order[start : start + spec.batch_size]
            found = [self.layout.places[samples[index]] for index in chosen]
            places = places_of(found, [cut(index) for index in chosen], transform.image_size)
            labels = np.array([samples[index].label for index in chosen], np.int64)
            return places, frame_of(found, bool(places.turned.any()), self.layout, transform), labels

        # One thread draws ahead while this one waits for the device.
        return prefetch(batch, range(0, len(order), spec.batch_size), min(spec.workers, 1), look_ahead=2)


def frame_of(found: Sequence[tuple[int, int, int]], turns: bool, layout: Layout, transform: Transform) -> Frame:
    """Return a frame that holds every image of a batch.

    Its height and width are the batch's largest sides, rounded up to a power of two but no larger than the layout's
    largest. So there are few frames, each of which costs a compilation, and a huge image costs other batches nothing.

    Args:
        found: First segment, width and height in pixels of each image of the batch.
        turns: Whether some images are turned; height and width are then made equal.
        layout: The places of all images.
        transform: The preprocessing.

    Returns:
        The frame.
    """
    height, width = (max(SEGMENT, *(place[axis] for place in found)) for axis in (2, 1))
    height, width = min(_power_of_two(height), layout.height), min(_power_of_two(width), layout.width)
    if turns:
        height = width = segments_across(max(height, width)) * SEGMENT
    padded = transform.test_resize == "letterbox"
    return Frame(height, width, turns, transform.image_size, transform.scale, transform.mean, transform.std, padded)


def _power_of_two(number: int) -> int:
    """Return the least power of two that is not below `number`, which is 1 or more."""
    return 1 << (number - 1).bit_length()
