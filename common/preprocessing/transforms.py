"""The resolved numbers of an experiment's preprocessing, and the normalisation of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.network import sources, weights
from common.spec.experiment import ExperimentSpec

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Transform:
    """The resolved numbers of an experiment's preprocessing, from which every pipeline works.

    A pixel of channel c with value v (0 to 255) becomes (v * scale - mean[c]) / std[c].
    """

    image_size: int
    """Side of the square that the network sees, in pixels."""
    resize_size: int
    """Size that an image is resized to before a crop of `image_size`, in pixels."""
    train_crop: Literal["random_resized_crop", "resize_random_crop", "none"]
    test_resize: Literal["short_side", "squash"]
    flip: bool
    channel_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    presized_side: int | None = None
    """Short side in pixels to which a larger image is reduced before anything else; None for an image as it is."""


def transform_for(spec: ExperimentSpec) -> Transform:
    """Return the transform of an experiment: the spec's numbers, and the weights' own where the spec has none."""
    own = sources.preprocessing_of(spec)
    image_size = spec.image_size or own.image_size
    resize_size = max(spec.resize_size or round(own.resize_size * image_size / own.image_size), image_size)
    return Transform(
        image_size, resize_size, spec.train_crop, spec.test_resize, spec.flip, own.channel_order,
        own.scale, own.mean, own.std, presized_side(spec, resize_size),
    )  # fmt: skip


def presized_side(spec: ExperimentSpec, resize_size: int) -> int | None:
    """Return the short side in pixels that `spec.presize` means where images are resized to `resize_size`.

    >>> presized_side(ExperimentSpec(presize=2.5), 73)
    182
    """
    return None if spec.presize is None else round(spec.presize * resize_size)


def preprocessing(transform: Transform) -> weights.Preprocessing:
    """Return the preprocessing that a checkpoint trained with `transform` records."""
    return weights.Preprocessing(
        transform.image_size, transform.resize_size, "bilinear", transform.channel_order, transform.scale,
        transform.mean, transform.std,
    )  # fmt: skip


def normalise(image: Image.Image, transform: Transform, out: Images | None = None) -> Images:
    """Normalise an image with the channel order, scale, mean and standard deviation of the weights.

    A pixel of channel c with value v (0 to 255) becomes (v * scale - mean[c]) / std[c].

    Args:
        image: An 8-bit RGB image.
        transform: The preprocessing.
        out: Contiguous (H, W, 3) float32 array to write to; by default a new one.

    Returns:
        `out`: (H, W, 3) float32.
    """
    pixels = np.asarray(image)
    out = np.empty(pixels.shape, np.float32) if out is None else out
    if transform.channel_order == "BGR":
        pixels = pixels[..., ::-1]
    # Whole rows of W * 3 values, as NumPy is slow where the last axis has only three.
    rows = out.reshape(len(out), -1)
    mean, std = (np.tile(np.asarray(values, np.float32), image.width) for values in (transform.mean, transform.std))
    np.multiply(pixels.reshape(rows.shape), np.float32(transform.scale), out=rows, dtype=np.float32)
    np.subtract(rows, mean, out=rows)
    np.divide(rows, std, out=rows)
    return out
