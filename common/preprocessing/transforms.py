"""The resolved numbers of an experiment's preprocessing, and the normalisation of pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.network import sources
from common.network.preprocessing_metadata import Preprocessing
from common.spec.experiment import ExperimentSpec
from common.spec.names import ResizeWay

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

# Backends whose own tools resize without smoothing before.
UNSMOOTHED = ("keras", "mxnet")


@dataclass(frozen=True)
class Transform:
    """The resolved numbers of an experiment's preprocessing, from which every pipeline works.

    A pixel of channel c with value v (0 to 255) becomes (v * scale - mean[c]) / std[c].
    """

    image_size: int
    """Side of the square that the network sees, in pixels."""
    resize_size: int
    """Size that an image is resized to before a crop of `image_size`, in pixels; `image_size` with letterbox."""
    train_crop: Literal["random_resized_crop", "resize_random_crop", "none"]
    test_resize: ResizeWay
    flip: bool
    channel_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    antialias: bool = True
    """Whether the pipeline smooths an image that it makes smaller."""
    presized_side: int | None = None
    """Short side in pixels to which a larger image is reduced before anything else; None for an image as it is."""


def transform_for(spec: ExperimentSpec) -> Transform:
    """Return the transform of an experiment: the spec's values, and the weights' own where the spec has none.

    A UserError of the rules between fields says where the weights' way of resizing contradicts the spec.
    """
    own = sources.preprocessing_of(spec)
    spec = spec.replace(test_resize=spec.test_resize or own.resize)
    assert spec.test_resize is not None
    image_size = spec.image_size or own.image_size
    resize_size = max(spec.resize_size or round(own.resize_size * image_size / own.image_size), image_size)
    return Transform(
        image_size, image_size if spec.test_resize == "letterbox" else resize_size, spec.train_crop, spec.test_resize,
        spec.flip, own.channel_order, own.scale, own.mean, own.std,
        antialias=spec.pipeline != "native" or spec.backend not in UNSMOOTHED,
        presized_side=presized_side(spec, own, resize_size),
    )  # fmt: skip


def presized_side(spec: ExperimentSpec, own: Preprocessing, resize_size: int) -> int | None:
    """Return the short side in pixels to which larger images are reduced first, or None where they are not.

    >>> presized_side(ExperimentSpec(presize=2.5), Preprocessing(), 73)
    182

    Args:
        spec: The experiment.
        own: The preprocessing of the source weights, which counts where `spec.presize` is None.
        resize_size: The size that images are resized to, in pixels.
    """
    if spec.presize is not None:
        return round(spec.presize * resize_size)
    return None if own.presized_side is None else round(own.presized_side * resize_size / own.resize_size)


def preprocessing(transform: Transform) -> Preprocessing:
    """Return the preprocessing that a checkpoint trained with `transform` records."""
    return Preprocessing(
        transform.image_size, transform.resize_size, "bilinear", transform.channel_order, transform.scale,
        transform.mean, transform.std, transform.test_resize, transform.antialias,
        presized_side=transform.presized_side,
    )  # fmt: skip


def notes(spec: ExperimentSpec, transform: Transform) -> list[str]:
    """Return a sentence on what differs between a transform and the metadata of the source weights.

    Args:
        spec: The experiment.
        transform: Its transform.

    Returns:
        One sentence; none where nothing differs, where the weights are not used or where their file says nothing.
    """
    stated = {} if spec.strategy == "scratch" else sources.stated_preprocessing(spec)
    used = asdict(preprocessing(transform))
    different = [f"{name} {used[name]} instead of {value}" for name, value in stated.items() if used[name] != value]
    return [f"Not as the weights' metadata say: {', '.join(different)}."] if different else []


def normalise(image: Image.Image, transform: Transform, out: Images | None = None) -> Images:
    """Normalise an image with the channel order, scale, mean and standard deviation of the weights.

    A pixel of channel c with value v (0 to 255) becomes (v * scale - mean[c]) / std[c]. With `letterbox` an image that
    is smaller than the square is put at its centre, with zeros around it.

    Args:
        image: An 8-bit RGB image.
        transform: The preprocessing.
        out: Contiguous (H, W, 3) float32 array to write to; by default a new one.

    Returns:
        `out`: (H, W, 3) float32.
    """
    side = transform.image_size
    if transform.test_resize != "letterbox" or image.size == (side, side):
        return _normalised(image, transform, out)
    out = np.empty((side, side, 3), np.float32) if out is None else out
    out[...] = 0
    left, top = ((side - length) // 2 for length in image.size)
    out[top : top + image.height, left : left + image.width] = _normalised(image, transform)
    return out


def _normalised(image: Image.Image, transform: Transform, out: Images | None = None) -> Images:
    """Normalise an image as it is: (H, W, 3) float32, written to `out` if that is given."""
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
