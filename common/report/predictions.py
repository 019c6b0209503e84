"""Compare predictions image by image: where runs disagree, and where they are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.contract.results import Predictions
from common.runs.predictions import UnusablePredictions, read_predictions
from common.runs.record import PREDICTIONS, RunRecord

SHOWN_DISAGREEMENTS = 24
SHOWN_MISTAKES = 12

# Name of a series -> seed -> predictions, all of the same images in the same order.
AnswersBySeries = Mapping[str, Mapping[int, Predictions]]


@dataclass(frozen=True)
class Answer:
    """What a series answers for an image: its top-1 class, the probability of that and that of the true class."""

    series: str
    top1: int
    probability: float
    true_probability: float


@dataclass(frozen=True)
class Disagreement:
    """An image whose top-1 class differs between series, with the seed that parts them most."""

    name: str
    label: int
    seed: int
    seeds_apart: int
    """The number of seeds with which they differ."""
    spread: float
    """The difference between the largest and the smallest probability of the true class."""
    answers: list[Answer]


@dataclass(frozen=True)
class Disagreements:
    """Where the series of a strategy disagree on images."""

    seeds: list[int]
    """Those that at least two series share."""
    images: int
    images_apart: int
    """Images with a disagreement for some seed."""
    predictions: int
    """Pairs of image and seed."""
    predictions_apart: int
    """Pairs of image and seed with a disagreement."""
    largest_gap: float
    """The largest difference of any class's probability."""
    shown: list[Disagreement]
    """The largest spread first."""


@dataclass(frozen=True)
class Share:
    """The seeds with which a series makes the same mistake, of so many."""

    series: str
    seeds: list[int]
    of: int


@dataclass(frozen=True)
class Mistake:
    """An image that a run is wrong about: its true class, the run's class and the probability of that."""

    name: str
    label: int
    top1: int
    probability: float
    series: str
    seed: int
    shared: list[Share]


@dataclass(frozen=True)
class Mistakes:
    """The images that runs of a strategy are wrong about."""

    images: int
    images_wrong: int
    """Images that some run has wrong."""
    images_wrong_in_all: int
    runs: int
    shown: list[Mistake]
    """The most confident first."""


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


def read_all(records: Mapping[Path, RunRecord], classes: Sequence[str]) -> dict[Path, Predictions | str]:
    """Read the predictions that most runs share the images of, so that all are of the same images in the same order.

    Args:
        records: The records of the runs by their paths.
        classes: The class names in the order of their indices.

    Returns:
        For each run its predictions, or a sentence that says why they cannot be used.
    """
    found = {path: read(path, record, classes) for path, record in records.items()}
    images = {path: (f.names, tuple(f.labels.tolist())) for path, f in found.items() if isinstance(f, Predictions)}
    usual = Counter(images.values()).most_common(1)
    other = "the test images are others than those of most runs on this data"
    return {path: other if path in images and images[path] != usual[0][0] else f for path, f in found.items()}


def disagreements(answers: AnswersBySeries) -> Disagreements | None:
    """Find the photographs whose top-1 class differs between series with the same seed.

    A photograph is shown once, with the seed of its largest spread.

    Args:
        answers: The predictions by series and seed.

    Returns:
        The disagreements, with up to SHOWN_DISAGREEMENTS photographs; None unless two series share a seed.
    """
    shared = {
        seed: {name: by_seed[seed] for name, by_seed in answers.items() if seed in by_seed}
        for seed in sorted({seed for by_seed in answers.values() for seed in by_seed})
    }
    shared = {seed: of_seed for seed, of_seed in shared.items() if len(of_seed) > 1}
    if not shared:
        return None
    found = [_spread([*of_seed.values()]) for of_seed in shared.values()]
    table = np.stack([spread for spread, _ in found])
    largest = table.max(axis=0)
    return Disagreements(
        seeds=list(shared),
        images=table.shape[1],
        images_apart=int((largest >= 0).sum()),
        predictions=table.size,
        predictions_apart=int((table >= 0).sum()),
        largest_gap=max(gap for _, gap in found),
        shown=[_disagreement(image, table[:, image], shared) for image in _first(largest, SHOWN_DISAGREEMENTS)],
    )


def _spread(runs: Sequence[Predictions]) -> tuple[NDArray[np.float64], float]:
    """Measure how far apart runs are on each photograph.

    With P[r] the probability that run r gives to the true class, a disagreement has the size

        spread = max_r P[r] - min_r P[r]

    Args:
        runs: The predictions of at least two runs.

    Returns:
        The spreads (images,), -1 where all runs predict the same class; and the largest difference of any class's
        probability.
    """
    probabilities = np.stack([run.probabilities for run in runs])
    top1 = probabilities.argmax(axis=2)
    of_truth = np.take_along_axis(probabilities, runs[0].labels[None, :, None], axis=2)[..., 0]
    spread = of_truth.max(axis=0) - of_truth.min(axis=0)
    gap = float((probabilities.max(axis=0) - probabilities.min(axis=0)).max())
    return np.where((top1 != top1[0]).any(axis=0), spread, -1.0), gap


def _disagreement(
    image: int, spreads: NDArray[np.float64], shared: Mapping[int, Mapping[str, Predictions]]
) -> Disagreement:
    """Describe the disagreement on an image, whose spreads are those with each of the shared seeds."""
    seed = list(shared)[int(spreads.argmax())]
    first = next(iter(shared[seed].values()))
    label = int(first.labels[image])
    return Disagreement(
        name=first.names[image],
        label=label,
        seed=seed,
        seeds_apart=int((spreads >= 0).sum()),
        spread=float(spreads.max()),
        answers=[
            Answer(name, *_top1(run, image), float(run.probabilities[image, label]))
            for name, run in shared[seed].items()
        ],
    )


def mistakes(answers: AnswersBySeries) -> Mistakes:
    """Find the photographs that some run is most confidently wrong about, and the runs that share the mistake.

    Args:
        answers: The predictions by series and seed, of at least one run.

    Returns:
        The mistakes, with up to SHOWN_MISTAKES photographs, each with the seeds of every series that predict the same
        wrong class.
    """
    runs = [(name, seed, run) for name, by_seed in answers.items() for seed, run in by_seed.items()]
    confidence = np.stack([np.where(run.right, -1.0, run.probabilities.max(axis=1)) for _, _, run in runs])
    largest = confidence.max(axis=0)
    shown = []
    for image in _first(largest, SHOWN_MISTAKES):
        name, seed, worst = runs[int(confidence[:, image].argmax())]
        wrong, probability = _top1(worst, image)
        shared = [
            Share(other, [s for s, run in by_seed.items() if int(run.top1[image]) == wrong], len(by_seed))
            for other, by_seed in answers.items()
        ]
        label = int(worst.labels[image])
        shown.append(Mistake(worst.names[image], label, wrong, probability, name, seed, shared))
    return Mistakes(
        images=confidence.shape[1],
        images_wrong=int((largest >= 0).sum()),
        images_wrong_in_all=int((confidence >= 0).all(axis=0).sum()),
        runs=len(runs),
        shown=shown,
    )


def _first(sizes: NDArray[np.float64], number: int) -> list[int]:
    """Return up to a number of images by falling size, without those of a negative one."""
    order: list[int] = np.argsort(-sizes, kind="stable").tolist()
    return order[: min(number, int((sizes >= 0).sum()))]


def _top1(run: Predictions, image: int) -> tuple[int, float]:
    """Return the top-1 class of an image and its probability."""
    return int(run.top1[image]), float(run.probabilities[image].max())
