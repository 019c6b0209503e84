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
    """The resolved numbers of an experiment's preprocessing; both pipelines work from these."""

    image_size: int
    resize_size: int
    train_crop: Literal["random_resized_crop", "resize_random_crop", "none"]
    test_resize: Literal["short_side", "squash"]
    flip: bool
    channel_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def transform_for(spec: ExperimentSpec) -> Transform:
    """The transform of an experiment: what the spec says, and what belongs to the weights where it says nothing."""
    own = sources.preprocessing_of(spec)
    image_size = spec.image_size or own.image_size
    resize_size = spec.resize_size or round(own.resize_size * image_size / own.image_size)
    return Transform(
        image_size, max(resize_size, image_size), spec.train_crop, spec.test_resize, spec.flip, own.channel_order,
        own.scale, own.mean, own.std,
    )  # fmt: skip


def preprocessing(transform: Transform) -> weights.Preprocessing:
    """What a checkpoint trained with `transform` records as its preprocessing."""
    return weights.Preprocessing(
        transform.image_size, transform.resize_size, "bilinear", transform.channel_order, transform.scale,
        transform.mean, transform.std,
    )  # fmt: skip


def normalise(image: Image.Image, transform: Transform, out: Images | None = None) -> Images:
    """An RGB image as float32 (H, W, 3) in the channel order, scale, mean and deviation of the weights.

    out: where to write it, contiguous.
    """
    pixels = np.asarray(image)
    out = np.empty(pixels.shape, np.float32) if out is None else out
    if transform.channel_order == "BGR":
        pixels = pixels[..., ::-1]
    # Rows as long as the image's: NumPy is slow where the last axis has three values only.
    rows = out.reshape(len(out), -1)
    mean, std = (np.tile(np.asarray(values, np.float32), image.width) for values in (transform.mean, transform.std))
    np.multiply(pixels.reshape(rows.shape), np.float32(transform.scale), out=rows, dtype=np.float32)
    np.subtract(rows, mean, out=rows)
    np.divide(rows, std, out=rows)
    return out
