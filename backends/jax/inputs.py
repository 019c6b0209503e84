"""Input pipelines for JAX: the shared pipeline's batches as arrays, and Grain, JAX's own input library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grain
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from backends.jax import runtime
from common.data.folder import Sample, read_file
from common.preprocessing import crops, transforms
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


def from_shared(images: Images, labels: Labels) -> tuple[Array, Array]:
    """Return a batch of the shared pipeline for JAX: images stay (N, H, W, 3) float32, labels (N,) become int32.

    With one device both become JAX arrays. With several they stay NumPy arrays, and `backends.jax.training.shard_batch`
    shares them out.
    """
    if runtime.devices_in_use > 1:
        # Left in NumPy, because `shard_batch` copies each device's share to it.
        return images, labels.astype(np.int32)
    return jnp.asarray(images), jnp.asarray(labels.astype(np.int32))


def native_train_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
) -> Iterable[tuple[Array, Array]]:
    """Return one epoch of shuffled, augmented batches that Grain computes in threads.

    Grain shuffles and draws with a seed that is made of the experiment's seed and the epoch.

    Args:
        spec: The experiment: seed, batch size and number of threads (`workers`).
        transform: The preprocessing and augmentation.
        samples: The training images.
        epoch: Number of the epoch, which makes its draws differ from those of the others.

    Returns:
        Batches as `from_shared` gives them; the last one may be smaller.
    """
    # From this one seed Grain derives the order, and with an image's place in the order the draws of that image.
    (seed,) = np.random.SeedSequence([spec.seed, epoch]).generate_state(1)
    dataset = grain.MapDataset.source(samples).seed(int(seed)).shuffle().random_map(Augment(transform))
    return batches(dataset, spec)


def native_test_batches(
    spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
) -> Iterable[tuple[Array, Array]]:
    """Return all samples in order, in batches that Grain computes in threads, as `from_shared` gives them."""
    return batches(grain.MapDataset.source(samples).map(Prepare(transform)), spec)


def batches(dataset: grain.MapDataset, spec: ExperimentSpec) -> Iterable[tuple[Array, Array]]:
    """Return batches of images and labels that Grain computes ahead, up to two batches of images.

    Grain's threads are enough, because Pillow releases the interpreter lock; its processes would each import JAX again.

    Args:
        dataset: The (image, label) pairs.
        spec: The experiment: batch size and number of threads (`workers`).

    Returns:
        Batches as `from_shared` gives them; the last one may be smaller.
    """
    read_options = grain.ReadOptions(num_threads=spec.workers, prefetch_buffer_size=2 * spec.batch_size)
    ready = dataset.to_iter_dataset(read_options).batch(spec.batch_size, drop_remainder=False)
    return (from_shared(images, labels) for images, labels in ready)


class Augment(grain.transforms.RandomMap):
    """Turn a sample into an augmented training image, (H, W, 3) float32, and its label.

    Pillow resizes it: the photographs all differ in size, and JAX would compile its resize anew for each size.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def random_map(self, element: Sample, rng: np.random.Generator) -> tuple[Images, np.int64]:
        """Return the augmented image and the label of a sample, with the draws of `rng`."""
        image = read_file(element, self.transform.presized_side)
        size = self.transform.image_size
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
    """Turn a sample into a test image, (H, W, 3) float32 and cropped at the centre, and its label."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def map(self, element: Sample) -> tuple[Images, np.int64]:
        """Return the test image and the label of a sample."""
        image = read_file(element, self.transform.presized_side)
        return crops.test_image(image, self.transform), np.int64(element.label)
