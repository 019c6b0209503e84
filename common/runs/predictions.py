"""`predictions.npz`: what the kept model says of each test image."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from common.contract.results import Predictions
from common.data.folder import ImageData
from common.runs.record import PREDICTIONS
from common.system.files import write_atomically


def agreement(first: Path, second: Path) -> tuple[int, int, float] | None:
    """How the predictions beside two records agree: the number of images whose top-1 class differs, the number of
    images, and the largest difference of a logit. None where predictions are missing or not of the same images."""
    loaded = []
    for path in (first, second):
        try:
            with np.load(path.parent / PREDICTIONS) as stored:
                loaded.append({name: stored[name] for name in ("logits", "names", "classes")})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
    one, other = loaded
    if not all(np.array_equal(one[name], other[name]) for name in ("names", "classes")):
        return None
    differ = int((one["logits"].argmax(axis=1) != other["logits"].argmax(axis=1)).sum())
    return differ, len(one["logits"]), float(np.abs(one["logits"] - other["logits"]).max())


def write_predictions(folder: Path, predictions: Predictions, data: ImageData) -> None:
    """Write `predictions.npz`: logits (N, classes), labels (N,) int64, names (N,) of files, classes (classes,); N is
    the number of test images that count."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        logits=predictions.logits,
        labels=predictions.labels,
        names=np.array([sample.name for sample in data.test[: len(predictions.labels)]]),
        classes=np.array(data.classes),
    )
    write_atomically(folder / PREDICTIONS, stream.getvalue())
