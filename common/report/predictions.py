"""Compare predictions image by image: where runs disagree, where they are wrong, which classes they mix up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from common.contract.results import Predictions
from common.runs.predictions import UnusablePredictions, read_predictions
from common.runs.record import PREDICTIONS, RunRecord

SHOWN_DISAGREEMENTS = 24
SHOWN_MISTAKES = 12
SHOWN_CONFUSIONS = 3


# Name of a series -> seed -> predictions, all of the same images in the same order.
AnswersBySeries = Mapping[str, Mapping[int, Predictions]]


def read(path: Path, record: RunRecord, classes: Sequence[str]) -> Predictions | str:
    """Return the predictions beside the record at `path`, or a sentence that says why they cannot be used."""
    try:
        predictions = read_predictions(path.parent)
    except UnusablePredictions as error:
        return str(error)
    if predictions.classes != tuple(classes):
        return f"{PREDICTIONS} is of other classes than the record"
    if abs(predictions.accuracy - record.final.get("test_accuracy", np.nan)) > 1e-6:
        return f"{PREDICTIONS} is not of this record: its accuracy is {predictions.accuracy:.3f}"
    return predictions


def confusion(runs: Sequence[Predictions], classes: int) -> dict[str, Any]:
    """Count true and predicted classes over all runs, with the precision and recall of each class.

    With n[t][p] the number of images of class t that were predicted as p, class c has

        precision[c] = n[c][c] / sum_t n[t][c]
        recall[c] = n[c][c] / sum_p n[c][p]

    Args:
        runs: The predictions of each run.
        classes: The number of classes.

    Returns:
        A dictionary of `matrix`, the counts n as nested lists; `most_confused`, up to SHOWN_CONFUSIONS of the largest
        counts off the diagonal, each as [true class, predicted class, count]; `precision` and `recall` by class, NaN
        where undefined; `images`, the predictions for images of each class; and `runs`, the number of runs.
    """
    labels = np.concatenate([run.labels for run in runs])
    top1 = np.concatenate([run.top1 for run in runs])
    precision, recall, _, support = precision_recall_fscore_support(
        labels, top1, labels=range(classes), zero_division=np.nan
    )
    matrix = confusion_matrix(labels, top1, labels=range(classes))
    wrong = matrix - np.diag(np.diag(matrix))
    places = np.argsort(-wrong, axis=None, kind="stable")[: min(SHOWN_CONFUSIONS, np.count_nonzero(wrong))]
    return {
        "matrix": matrix.tolist(),
        "most_confused": [[int(p // classes), int(p % classes), int(wrong.flat[p])] for p in places],
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "images": support.tolist(),
        "runs": len(runs),
    }


def disagreements(answers: AnswersBySeries) -> dict[str, Any] | None:
    """Find the photographs whose top-1 class differs between series with the same seed.

    With P[s] the probability that series s gives to the true class, a disagreement has the size

        spread = max_s P[s] - min_s P[s]

    A photograph is shown once, with the seed of its largest spread.

    Args:
        answers: The predictions by series and seed.

    Returns:
        None unless two series share a seed. Otherwise a dictionary of `seeds`, those that series share; `images` and
        `images_apart`, the photographs and those with a disagreement for some seed; `predictions` and
        `predictions_apart`, the same for pairs of photograph and seed; `largest_gap`, the largest difference of any
        class's probability; and `shown`, up to SHOWN_DISAGREEMENTS photographs, the largest spread first.
    """
    seeds = sorted({seed for by_seed in answers.values() for seed in by_seed})
    shared = {seed: [name for name in answers if seed in answers[name]] for seed in seeds}
    shared = {seed: names for seed, names in shared.items() if len(names) > 1}
    if not shared:
        return None
    spreads, gap = [], 0.0
    for seed, names in shared.items():
        runs = [answers[name][seed] for name in names]
        probabilities = np.stack([run.probabilities for run in runs])
        top1 = probabilities.argmax(axis=2)
        of_truth = np.take_along_axis(probabilities, runs[0].labels[None, :, None], axis=2)[..., 0]
        spread = of_truth.max(axis=0) - of_truth.min(axis=0)
        gap = max(gap, float((probabilities.max(axis=0) - probabilities.min(axis=0)).max()))
        spreads.append(np.where((top1 != top1[0]).any(axis=0), spread, -1.0))
    table = np.stack(spreads)
    largest = table.max(axis=0)
    order = np.argsort(-largest, kind="stable")
    shown = []
    for image in order[: min(SHOWN_DISAGREEMENTS, int((largest >= 0).sum()))]:
        seed = list(shared)[int(table[:, image].argmax())]
        of_seed = {name: answers[name][seed] for name in shared[seed]}
        shown.append(
            {
                **_of_image(next(iter(of_seed.values())), int(image)),
                "seed": seed,
                "seeds_apart": int((table[:, image] >= 0).sum()),
                "spread": float(largest[image]),
                "answers": [
                    {"series": name, **_answer(run, int(image)), "true_probability": _of_truth(run, int(image))}
                    for name, run in of_seed.items()
                ],
            }
        )
    return {
        "seeds": list(shared),
        "images": table.shape[1],
        "images_apart": int((largest >= 0).sum()),
        "predictions": table.size,
        "predictions_apart": int((table >= 0).sum()),
        "largest_gap": gap,
        "shown": shown,
    }


def mistakes(answers: AnswersBySeries) -> dict[str, Any]:
    """Find the photographs that some run is most confidently wrong about, and the runs that share the mistake.

    Args:
        answers: The predictions by series and seed, of at least one run.

    Returns:
        A dictionary of `images`; `images_wrong`, those that some run has wrong; `images_wrong_in_all`; `runs`, the
        number of runs; and `shown`, up to SHOWN_MISTAKES photographs, the highest probability of a wrong class first,
        each with the seeds of every series that predict the same wrong class.
    """
    runs = [(name, seed, run) for name, by_seed in answers.items() for seed, run in by_seed.items()]
    confidence = np.stack([np.where(run.right, -1.0, run.probabilities.max(axis=1)) for _, _, run in runs])
    largest = confidence.max(axis=0)
    shown = []
    for image in np.argsort(-largest, kind="stable")[: min(SHOWN_MISTAKES, int((largest >= 0).sum()))]:
        name, seed, worst = runs[int(confidence[:, image].argmax())]
        wrong = int(worst.top1[image])
        shared = {
            other: [s for s, run in by_seed.items() if int(run.top1[image]) == wrong]
            for other, by_seed in answers.items()
        }
        shown.append(
            {
                **_of_image(worst, int(image)),
                **_answer(worst, int(image)),
                "series": name,
                "seed": seed,
                "shared": [
                    {"series": other, "seeds": found, "of": len(answers[other])} for other, found in shared.items()
                ],
            }
        )
    return {
        "images": confidence.shape[1],
        "images_wrong": int((largest >= 0).sum()),
        "images_wrong_in_all": int((confidence >= 0).all(axis=0).sum()),
        "runs": len(runs),
        "shown": shown,
    }


def _of_image(run: Predictions, image: int) -> dict[str, Any]:
    """Return the name and the true class of an image."""
    return {"name": run.names[image], "label": int(run.labels[image])}


def _answer(run: Predictions, image: int) -> dict[str, Any]:
    """Return the top-1 class of an image and its probability."""
    return {"top1": int(run.top1[image]), "probability": float(run.probabilities[image].max())}


def _of_truth(run: Predictions, image: int) -> float:
    """Return the probability that a run gives to the true class of an image."""
    return float(run.probabilities[image, run.labels[image]])
