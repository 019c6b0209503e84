"""`predictions.npz`: the kept model's logits for each test image, with one writer and one reader."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from common.contract.results import Predictions
from common.data.folder import ImageData
from common.runs.record import PREDICTIONS
from common.system.files import write_atomically


class UnusablePredictions(ValueError):
    """`predictions.npz` is missing or damaged; the message says which and names the file."""


def write_predictions(folder: Path, predictions: Predictions, data: ImageData) -> None:
    """Write `predictions.npz`: logits (N, C), labels (N,) int64, names (N,) of files, classes (C,).

    Args:
        folder: The run's folder.
        predictions: Those of the first N test images: of all, or of those in full batches where the last is dropped.
        data: The data, for the names of files and of the C classes.
    """
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        logits=predictions.logits,
        labels=predictions.labels,
        names=np.array([sample.name for sample in data.test[: len(predictions.labels)]]),
        classes=np.array(data.classes),
    )
    write_atomically(folder / PREDICTIONS, stream.getvalue())


def read_predictions(folder: Path) -> Predictions:
    """Read the `predictions.npz` of a run.

    Args:
        folder: The run's folder.

    Returns:
        The predictions, with the names of files and classes.

    Raises:
        UnusablePredictions: The file is missing or cannot be read, its arrays do not fit together, or a logit is not
            finite.
    """
    file = folder / PREDICTIONS
    if not file.exists():
        raise UnusablePredictions(f"there is no {PREDICTIONS} beside the record")
    try:
        with np.load(file, allow_pickle=False) as stored:
            logits, labels, names, classes = (stored[name] for name in ("logits", "labels", "names", "classes"))
        logits.astype(np.float64)
        labels = labels.astype(np.int64)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UnusablePredictions(f"{PREDICTIONS} cannot be read ({type(error).__name__})") from error
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or names.shape != labels.shape or not labels.size:
        raise UnusablePredictions(f"{PREDICTIONS} is damaged: its arrays do not fit together")
    if classes.shape != logits.shape[1:]:
        raise UnusablePredictions(f"{PREDICTIONS} is of other classes than the record")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UnusablePredictions(f"{PREDICTIONS} is damaged: it has labels that are no class")
    if not np.isfinite(logits).all():
        raise UnusablePredictions(f"{PREDICTIONS} has logits that are not finite")
    return Predictions(logits, labels, tuple(map(str, names)), tuple(map(str, classes)))


def agreement(first: Path, second: Path) -> tuple[int, int, float] | None:
    """Compare the predictions of two runs.

    Args:
        first: Folder of one run.
        second: Folder of the other run.

    Returns:
        The number of images whose top-1 class differs, the number of images, and the largest difference of a logit;
        None where predictions are missing or not of the same images and classes.
    """
    try:
        one, other = read_predictions(first), read_predictions(second)
    except UnusablePredictions:
        return None
    if (one.names, one.classes) != (other.names, other.classes):
        return None
    return int((one.top1 != other.top1).sum()), len(one.labels), float(np.abs(one.logits - other.logits).max())
