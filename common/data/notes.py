"""What a person is told of the data before a run begins."""

from __future__ import annotations

from common.data import datasets, duplicates
from common.data.folder import ImageData, Sample
from common.spec.experiment import ExperimentSpec


def notes(spec: ExperimentSpec, data: ImageData) -> list[str]:
    """Return the lines to show before a run: how data of one's own was understood, and what is wrong with it.

    Args:
        spec: The experiment.
        data: Its data.

    Returns:
        The lines; none of the data sets that this project brings.
    """
    if spec.data in datasets.DATASETS:
        return []
    lines = [f"{data.name}: {data.summary}"]
    shared = shared_images(data)
    if shared:
        known, tested = shared[0]
        lines.append(
            f"warning: {len(shared):,} of the {len(data.test):,} test images are among the training images too, "
            f"such as {tested.name}, which is {known.name}; the test accuracy will flatter"
        )
    # Names of files need not be Unicode, but what is printed must be.
    return [line.encode("utf-8", "backslashreplace").decode() for line in lines]


def shared_images(data: ImageData) -> list[tuple[Sample, Sample]]:
    """Find the test images whose files are, byte for byte, among the training or validation images.

    Args:
        data: The data.

    Returns:
        Pairs of a training or validation image and a test image.
    """
    known = (*data.train, *data.validation)
    pairs = duplicates.same_files([sample.path for sample in known], [sample.path for sample in data.test])
    return [(known[one], data.test[two]) for one, two in pairs]
