"""How many images and steps an experiment counts."""

from __future__ import annotations

import math

from common.data.folder import ImageData
from common.method import feature_reuse, phases
from common.spec.experiment import ExperimentSpec


def steps(spec: ExperimentSpec, data: ImageData) -> int:
    """Number of batches over all epochs, evaluations and features included."""
    images = (counted_images(spec, len(data.train)), len(data.validation), counted_images(spec, len(data.test)))
    train, *evaluated = (math.ceil(count / spec.batch_size) for count in images)
    # Features that are computed once take as many batches as an epoch.
    reused = sum(feature_reuse.reused(spec, phase) for phase in phases.phases(spec) if phase.epochs)
    once = math.ceil(len(data.train) / spec.batch_size) + sum(evaluated)
    return spec.epochs * (train + sum(evaluated)) + reused * once or sum(evaluated)


def counted_images(spec: ExperimentSpec, images: int) -> int:
    """How many of an epoch's training images, or of the test images, count: all, or those in full batches."""
    return images - images % spec.batch_size if spec.last_batch == "drop" else images
