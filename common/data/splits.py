"""Hold validation images back from the training images."""

from __future__ import annotations

import dataclasses

import numpy as np

from common.data.folder import ImageData, Sample
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# Number of the split's random stream; common.network.resnet and common.preprocessing.crops have 1 to 4.
_SPLIT = 5


def split(data: ImageData, spec: ExperimentSpec) -> ImageData:
    """Hold the share `spec.validation` of each class's training images back, drawn from the seed.

    Of n images of a class, round(validation * n) become validation images. Data with validation images of its own keeps
    these instead.

    Args:
        data: The data.
        spec: What the user chose; with `validation` 0 the data stays as it is.

    Returns:
        The data with `train` divided into `train` and `validation`, both still sorted.

    Raises:
        UserError: A class is left without an image to validate on or to train on.
    """
    if not spec.validation:
        return data
    if data.validation:
        note = "validation images as the data has them, none held back"
        return dataclasses.replace(data, notes=(*data.notes, note))
    train: list[Sample] = []
    validation: list[Sample] = []
    for label, name in enumerate(data.classes):
        samples = [sample for sample in data.train if sample.label == label]
        count = round(spec.validation * len(samples))
        if not 0 < count < len(samples):
            raise UserError(
                f"--validation {spec.validation:g} makes {count} of the {len(samples)} training images of the class "
                f"{name!r} validation images; both parts need at least one"
            )
        # Of the generator only `random` is used: its stream is the same in every NumPy.
        draws = np.random.default_rng([spec.seed, _SPLIT, label]).random(len(samples))
        chosen = set(np.argsort(draws, kind="stable")[:count].tolist())
        train += [sample for index, sample in enumerate(samples) if index not in chosen]
        validation += [sample for index, sample in enumerate(samples) if index in chosen]
    return dataclasses.replace(data, train=tuple(train), validation=tuple(validation))
