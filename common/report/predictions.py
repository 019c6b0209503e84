"""What the runs say of single photographs: where they part, where they are wrong, and which classes they mix up."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from common.runs.record import PREDICTIONS, RunRecord

SHOWN_DISAGREEMENTS = 24
SHOWN_MISTAKES = 12
SHOWN_CONFUSIONS = 3


@dataclass(frozen=True)
class Answers:
    """A run's predictions of its N test images over C classes."""

    probabilities: NDArray[np.float64]
    """(N, C), the softmax of the logits."""
    labels: NDArray[np.int64]
    """(N,)"""
    names: tuple[str, ...]

    @property
    def top1(self) -> NDArray[np.int64]:
        """(N,) index of the most probable class."""
        best: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return best

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) whether top-1 is the true class."""
        found: NDArray[np.bool_] = self.top1 == self.labels
        return found


# Name of a series -> seed -> answers, all of the same images in the same order.
AnswersBySeries = Mapping[str, Mapping[int, Answers]]


def read(path: Path, record: RunRecord, classes: Sequence[str]) -> Answers | str:
    """The predictions beside the record at `path`, or why they are of no use."""
    file = path.parent / PREDICTIONS
    if not file.exists():
        return f"there is no {PREDICTIONS} beside the record"
    try:
        with np.load(file) as stored:
            logits, labels, names, stored_classes = (stored[k] for k in ("logits", "labels", "names", "classes"))
        logits, labels = logits.astype(np.float64), labels.astype(np.int64)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        return f"{PREDICTIONS} cannot be read ({type(error).__name__})"
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or names.shape != labels.shape or not labels.size:
        return f"{PREDICTIONS} is damaged: its arrays do not fit together"
    if [str(name) for name in stored_classes] != list(classes) or logits.shape[1] != len(classes):
        return f"{PREDICTIONS} is of other classes than the record"
    if labels.min() < 0 or labels.max() >= len(classes):
        return f"{PREDICTIONS} is damaged: it has labels that are no class"
    if not np.isfinite(logits).all():
        return f"{PREDICTIONS} has logits that are not finite"
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    answers = Answers(shifted / shifted.sum(axis=1, keepdims=True), labels, tuple(str(name) for name in names))
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    if abs(accuracy - record.final.get("test_accuracy", np.nan)) > 1e-6:
        return f"{PREDICTIONS} is not of this record: its accuracy is {accuracy:.3f}"
    return answers


def confusion(runs: Sequence[Answers], classes: int) -> dict[str, Any]:
    """Counts over the runs, [true class][predicted class], with each class's precision and recall (NaN: undefined).

    `most_confused` holds the largest counts off the diagonal: true class, predicted class, count.
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
    """Where series with the same seed give a photograph another top-1 class; None without two series and a seed.

    The size of a disagreement is how far apart the probabilities of the true class are. A photograph is shown once,
    with the seed that parts the series most.
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
    """The photographs that some run is most confidently wrong about, and which runs share the mistake."""
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


def _of_image(run: Answers, image: int) -> dict[str, Any]:
    return {"name": run.names[image], "label": int(run.labels[image])}


def _answer(run: Answers, image: int) -> dict[str, Any]:
    return {"top1": int(run.top1[image]), "probability": float(run.probabilities[image].max())}


def _of_truth(run: Answers, image: int) -> float:
    return float(run.probabilities[image, run.labels[image]])
