"""Input pipelines for JAX: the shared one's batches as arrays, and Grain, JAX's own library for input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grain
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from backends.jax import runtime
from common.data.folder import Sample
from common.data.images import open_rgb
from common.preprocessing import crops, transforms
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


def from_shared(images: Images, labels: Labels) -> tuple[Array, Array]:
    """See `common.contract.backend.Backend.from_shared`: images stay (N, H, W, 3), labels become JAX's integers."""
    if runtime.devices_in_use > 1:
        # Each device will take its part of them.
        return images, labels.astype(np.int32)
    return jnp.asarray(images), jnp.asarray(labels.astype(np.int32))


def native_train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
) -> Iterable[tuple[Array, Array]]:
    """See `common.contract.backend.Backend.native_train_batches`."""
    # Grain derives from one seed the order and, with an image's place in it, the draws of each image.
    (seed,) = np.random.SeedSequence([spec.seed, epoch]).generate_state(1)
    dataset = grain.MapDataset.source(samples).seed(int(seed)).shuffle().random_map(Augment(transform))
    return batches(dataset, spec)


def native_test_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
) -> Iterable[tuple[Array, Array]]:
    """See `common.contract.backend.Backend.native_test_batches`."""
    return batches(grain.MapDataset.source(samples).map(Prepare(transform)), spec)


def batches(dataset: grain.MapDataset, spec: ExperimentSpec) -> Iterable[tuple[Array, Array]]:
    """Batches of (image, label), computed ahead.

    Grain's threads are enough, as Pillow gives up the interpreter lock; its processes would each import JAX again.
    """
    read_options = grain.ReadOptions(num_threads=spec.workers, prefetch_buffer_size=2 * spec.batch_size)
    ready = dataset.to_iter_dataset(read_options).batch(spec.batch_size, drop_remainder=False)
    return (from_shared(images, labels) for images, labels in ready)


class Augment(grain.transforms.RandomMap):
    """Sample -> augmented training image (H, W, 3) float32, and label.

    Pillow resizes: the photographs are all of different sizes, and JAX would compile its resize for each of them.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def random_map(self, element: Sample, rng: np.random.Generator) -> tuple[Images, np.int64]:
        image, size = open_rgb(element.path), self.transform.image_size
        if self.transform.train_crop == "random_resized_crop":
            box = crops.random_crop_box(image.width, image.height, rng.random(40))
            image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        elif self.transform.train_crop == "none":
            image = crops.crop_for_test(image, self.transform)
        else:
            image = crops.resize_for_test(image, self.transform)
            left, top = rng.integers([side - size + 1 for side in image.size])
            image = image.crop((left, top, left + size, top + size))
        if self.transform.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return transforms.normalise(image, self.transform), np.int64(element.label)


class Prepare(grain.transforms.Map):
    """Sample -> test image (H, W, 3) float32, cropped at the centre, and label."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def map(self, element: Sample) -> tuple[Images, np.int64]:
        return crops.test_image(open_rgb(element.path), self.transform), np.int64(element.label)
