"""Draw random crops and let Pillow cut and resize them: the same pixels for every framework."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.preprocessing.random_streams import AUGMENTATION, generator
from common.preprocessing.transforms import Images, Transform, normalise

# RandomResizedCrop's range of area and of aspect ratio (Szegedy et al. 2015; torchvision's defaults).
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
_CROP_TRIES = 10


def train_image(image: Image.Image, transform: Transform, seed: int, epoch: int, sample: int) -> Images:
    """Return an augmented training image as the network sees it: (H, W, 3) float32, normalised."""
    return normalise(augment(image, transform, seed, epoch, sample), transform)


def augment(image: Image.Image, transform: Transform, seed: int, epoch: int, sample: int) -> Image.Image:
    """Return an augmented training image: 8-bit RGB, not normalised yet."""
    return cut_out(image, training_cut(image.size, transform, seed, epoch, sample), transform)


def test_image(image: Image.Image, transform: Transform) -> Images:
    """Return a test image, resized and then cropped at the centre: (H, W, 3) float32, normalised."""
    return normalise(crop_for_test(image, transform), transform)


def crop_for_test(image: Image.Image, transform: Transform) -> Image.Image:
    """Resize an image and return the square at its centre, or with letterbox the whole, a side of which is shorter."""
    return cut_out(image, test_cut(image.size, transform), transform)


def resize_for_test(image: Image.Image, transform: Transform) -> Image.Image:
    """Resize an image as for a test, but crop nothing: its short side, or both, become `transform.resize_size`."""
    return image.resize(resized_for_test(image.size, transform), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Cut:
    """How an image becomes the square that the network sees; all numbers are pixels.

    The part `box` of the image is resized to `resized`; of that the square at `corner` is taken, and perhaps mirrored.
    """

    box: tuple[int, int, int, int]
    """Left, top, right and bottom in the image."""
    resized: tuple[int, int]
    """Width and height after the resize."""
    corner: tuple[int, int] = (0, 0)
    """Left and top of the square in the resized part; below 0 where the square reaches beyond it (letterbox)."""
    mirrored: bool = False
    """Whether left and right change places."""


def training_cut(size: tuple[int, int], transform: Transform, seed: int, epoch: int, sample: int) -> Cut:
    """Draw the random cut of a training image.

    Args:
        size: Width and height of the image in pixels.
        transform: The preprocessing.
        seed: Seed of the experiment.
        epoch: Counted from 1.
        sample: Index of the sample among the training samples.

    Returns:
        The cut; the same seed, epoch and sample always give the same one.
    """
    draws = generator(seed, AUGMENTATION, epoch, sample).random(2 + 4 * _CROP_TRIES)
    side = transform.image_size
    if transform.train_crop == "random_resized_crop":
        cut = Cut(random_crop_box(*size, draws[1:]), (side, side))
    elif transform.train_crop == "none":
        cut = test_cut(size, transform)
    else:
        width, height = resized_for_test(size, transform)
        corner = int(draws[1] * (width - side + 1)), int(draws[2] * (height - side + 1))
        cut = Cut((0, 0, *size), (width, height), corner)
    return replace(cut, mirrored=transform.flip and bool(draws[0] < 0.5))


def test_cut(size: tuple[int, int], transform: Transform) -> Cut:
    """Return the cut of a test image of `size`, its width and height: the square at the centre of the resized image."""
    width, height = resized_for_test(size, transform)
    side = transform.image_size
    if transform.test_resize == "letterbox":
        return Cut((0, 0, *size), (width, height), (-((side - width) // 2), -((side - height) // 2)))
    return Cut((0, 0, *size), (width, height), (round((width - side) / 2), round((height - side) / 2)))


def resized_for_test(size: tuple[int, int], transform: Transform) -> tuple[int, int]:
    """Return the width and height to which an image of `size`, its width and height, is resized before the crop.

    >>> letterbox = Transform(64, 64, "none", "letterbox", False, "RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    >>> resized_for_test((200, 100), letterbox)
    (64, 32)
    """
    if transform.test_resize == "letterbox":
        width, height = (max(transform.image_size * side // max(size), 1) for side in size)
        return width, height
    if transform.test_resize == "squash":
        return transform.resize_size, transform.resize_size
    # torchvision truncates the long side, too.
    width, height = (transform.resize_size * side // min(size) for side in size)
    return width, height


def cut_out(image: Image.Image, cut: Cut, transform: Transform) -> Image.Image:
    """Return what an image has of the square that `cut` describes, resized by Pillow with its bilinear filter."""
    side, (left, top) = transform.image_size, cut.corner
    image = image.resize(cut.resized, Image.Resampling.BILINEAR, box=cut.box)
    if transform.test_resize != "letterbox" and cut.resized != (side, side):
        image = image.crop((left, top, left + side, top + side))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if cut.mirrored else image


def random_crop_box(width: int, height: int, draws: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Choose a crop of random area and aspect ratio, as torchvision's RandomResizedCrop does.

    With u the four numbers of a try, A = CROP_AREA and R = CROP_RATIO, the crop's area and aspect ratio are

        area = width * height * (A[0] + u[0] * (A[1] - A[0]))
        ratio = exp(log(R[0]) + u[1] * (log(R[1]) - log(R[0])))

    and u[2] and u[3] place it from left to right and from top to bottom. After ten tries that do not fit, it is the
    largest centred crop whose aspect ratio is within CROP_RATIO.

    >>> random_crop_box(100, 100, np.zeros(40))
    (0, 0, 24, 33)

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        draws: (40,) or more uniform numbers in [0, 1), four for each of ten tries.

    Returns:
        Left, top, right and bottom of the crop in pixels.
    """
    low, high = np.log(CROP_RATIO[0]), np.log(CROP_RATIO[1])
    for attempt in range(_CROP_TRIES):
        for_area, for_ratio, for_left, for_top = draws[4 * attempt : 4 * attempt + 4]
        area = width * height * (CROP_AREA[0] + for_area * (CROP_AREA[1] - CROP_AREA[0]))
        ratio = np.exp(low + for_ratio * (high - low))
        crop_width, crop_height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = int(for_left * (width - crop_width + 1)), int(for_top * (height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    crop_width, crop_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height
