"""What a report says, as data: these classes have the fields of report.json, in their order."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from common.report.confusion import Confusion
from common.report.crosscheck import Crosscheck
from common.report.predictions import Disagreements, Mistakes

# Neither XML nor a terminal takes these characters, and a lone surrogate cannot be written as UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """A run: accuracies as fractions, times in seconds, memory in bytes, None where its record lacks a value."""

    number: int
    """Its number in the tables, from 1."""
    path: str
    """The path of its record.json."""
    backend: str
    strategy: str
    seed: int
    status: str
    error: str | None
    counted: bool
    """Whether it is complete, its test accuracy is finite, and no newer run repeats it."""
    test_accuracy: float | None
    test_accuracy_interval: Interval | None
    """Wilson's 95 % interval."""
    test_loss: float | None
    epochs: int
    epochs_planned: int
    architecture: str | None
    head_shape: list[int] | None
    source_head_shape: list[int] | None
    hotdog_index: int | None
    parameters: int | None
    trained_parameters: int | None
    learning_rate: float
    loss_reduction: str
    mean_learning_rate: float
    weights: str
    image_size: int | None
    images_per_second: float | None
    training_seconds: float | None
    total_seconds: float | None
    peak_memory_bytes: int | None
    peak_gpu_memory_bytes: int | None
    device: str | None
    processor: str | None
    cores: int | None
    platform: str | None
    versions: dict[str, str | None]
    skipped_images: int | None
    started: str
    command: str | None
    group: int
    """The number of its data group."""
    series: str
    """Its backend, with the settings in which it differs from other runs of its backend and strategy."""
    predictions: str | None
    """Why its predictions cannot be used, or None."""


@dataclass(frozen=True)
class Accuracy:
    """The test accuracies of a series; the deviation, with divisor n - 1, is None for a single run."""

    mean: float
    deviation: float | None
    values: list[float]


@dataclass(frozen=True)
class Loss:
    """The mean test loss of a series, None where it is not finite, and its deviation as that of Accuracy."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class Curve:
    """A metric after each epoch: the mean over the runs, and each run."""

    mean: list[float]
    runs: list[list[float]]


@dataclass(frozen=True)
class Series:
    """One framework's runs of one strategy with the same settings, over their seeds."""

    strategy: str
    series: str
    backend: str
    seeds: list[int]
    runs: list[int]
    """Their numbers."""
    accuracy: Accuracy
    accuracy_interval: Interval | None
    """The interval of a single run, None for several."""
    loss: Loss | None
    curves: dict[str, Curve] | None
    """By metric; None where no run has an epoch."""
    confusion: Confusion | None
    """None where no run has usable predictions."""


@dataclass(frozen=True)
class Advantage:
    """How much more accurate a series is than that of the same framework with the baseline strategy."""

    strategy: str
    series: str
    baseline_series: str
    seeds: list[int]
    """Those that both have predictions of."""
    difference: float
    """On these seeds, or without any the difference of the means."""
    interval: Interval | None
    """The 95 % interval; None without a common seed."""
    reading: Literal["more", "less", "noise", "unknown"]
    """It is "noise" where the interval contains 0, and "unknown" where there is none."""


@dataclass(frozen=True)
class Pair:
    """The comparison of two series of a strategy on the seeds of both."""

    strategy: str
    first: str
    second: str
    seeds: list[int]
    predictions: int
    """Pairs of image and seed."""
    predictions_apart: int
    """Those whose top-1 class differs."""
    largest_gap: float
    """The largest difference of any class's probability."""
    better: int
    """Pairs of image and seed that only the first has right."""
    worse: int
    """Pairs of image and seed that only the second has right."""
    difference: float
    """The accuracy of the first minus that of the second."""
    interval: Interval
    """The 95 % interval of the difference."""
    p_mcnemar: float
    p_seeds_and_images: float
    p: float
    """The larger of the two."""
    other_settings: list[str]
    """The fields of their specs, beyond those that a comparison varies, in which the two differ."""
    p_adjusted: float
    """By Holm's correction over all pairs of the data."""
    reading: Literal["noise", "apart", "networks"]
    """It is "networks" where they differ, with too few seeds to say it of the frameworks."""


@dataclass(frozen=True)
class Group:
    """All about the runs on the same data."""

    number: int
    names: list[str]
    fingerprint: str | None
    classes: list[str]
    class_to_idx: dict[str, int]
    train_images: int | None
    test_images: int | None
    runs: list[int]
    """Their numbers."""
    strategies: list[str]
    baseline: str | None
    """The strategy that the others are compared with; None where there is no other."""
    series: list[Series]
    advantages: list[Advantage]
    pairs: list[Pair]
    disagreements: dict[str, Disagreements | None]
    """By strategy; None where no two series share a seed."""
    mistakes: dict[str, Mistakes]
    """By strategy, without those that no run has usable predictions of."""
    verdict: list[str]
    differences: list[str]


@dataclass(frozen=True)
class Failure:
    """The error of a run that left no record."""

    run: str
    error: str


@dataclass(frozen=True)
class Report:
    """The content of report.json."""

    report_version: int
    made: str
    command: str | None
    enough_seeds: int
    level: float
    notes: list[str]
    differences: list[str]
    data: list[Group]
    runs: list[Run]
    failures: list[Failure]
    crosscheck: Crosscheck | None


def plain(value: Any) -> Any:
    """Return the value as JSON can hold it: None for numbers that are not finite, U+FFFD for unprintable characters.

    >>> plain({"loss": float("nan"), "seeds": (0, 1)})
    {'loss': None, 'seeds': (0, 1)}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{name: plain(inner) for name, inner in vars(value).items()})
    if isinstance(value, dict):
        return {plain(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
