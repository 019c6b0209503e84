"""The types of what a report says; `report.json` holds the same fields under the same names, in the same order.

Accuracies, probabilities and their differences are fractions, not percentages. Intervals are confidence intervals of
95 %, as (low, high).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.runs.record import Status

Interval = tuple[float, float]
GainReading = Literal["more", "less", "noise", "unknown"]
PairReading = Literal["noise", "apart", "networks"]


@dataclass(frozen=True)
class Run:
    """One run, a row of the report's tables; None for what its record lacks."""

    number: int
    """The run's number in the tables, from 1."""
    path: str
    """The path of its record.json."""
    backend: str
    strategy: str
    seed: int
    status: Status
    error: str | None
    """Why a run that is not complete ended."""
    counted: bool
    """Whether it is part of the means: complete, with a finite test accuracy, and repeated by no newer run."""
    test_accuracy: float | None
    test_accuracy_interval: Interval | None
    """Wilson's interval, for other test images; None unless the run is complete."""
    test_loss: float | None
    """Mean cross-entropy in nats."""
    epochs: int
    """Epochs that the run has finished."""
    epochs_planned: int
    architecture: str | None
    head_shape: Sequence[int] | None
    source_head_shape: Sequence[int] | None
    hotdog_index: int | None
    """The row of the source head that means hot dog."""
    parameters: int | None
    """The number of the network's parameters."""
    trained_parameters: int | None
    """The number of those that the strategy trains."""
    learning_rate: float
    """The base learning rate, for the loss as `loss_reduction` says."""
    loss_reduction: str
    """How the losses of a batch become one: "sum" or "mean"."""
    mean_learning_rate: float
    """The learning rate that does the same with the mean loss."""
    weights: str
    """The name or path of the source weights."""
    image_size: int | None
    """The side of the network's input in pixels."""
    images_per_second: float | None
    """Training images a second over all epochs, the input pipeline included."""
    training_seconds: float | None
    """Wall time of training in seconds."""
    total_seconds: float | None
    """Wall time of the whole run in seconds."""
    peak_memory_bytes: int | None
    peak_gpu_memory_bytes: int | None
    device: str | None
    processor: str | None
    cores: int | None
    platform: str | None
    versions: Mapping[str, str | None]
    """Python's version and those of the packages, by name."""
    skipped_images: int | None
    """The number of images that could not be read and were left out."""
    started: str
    """UTC time in ISO 8601."""
    command: str | None
    """The command line, quoted for a shell."""
    group: int
    """The number of the group of runs on the same data."""
    series: str
    """The backend and, where runs of one backend and strategy differ in settings, those settings."""
    predictions: str | None
    """Why its predictions cannot be compared image by image; None if they can be, or if the run does not count."""


@dataclass(frozen=True)
class Accuracy:
    """The test accuracies of a series, over its seeds."""

    mean: float
    deviation: float | None
    """The standard deviation over the seeds; None for one seed."""
    values: Sequence[float]
    """The accuracy of each seed."""


@dataclass(frozen=True)
class Loss:
    """The test losses of a series, over its seeds: mean cross-entropies in nats."""

    mean: float | None
    """None where it is not finite."""
    deviation: float | None
    """The standard deviation over the seeds; None for one seed, or where it is not finite."""


@dataclass(frozen=True)
class Curve:
    """A metric of a series after each epoch: a fraction or a loss in nats, None where it is not finite."""

    mean: Sequence[float | None]
    """The mean over the seeds by epoch."""
    runs: Sequence[Sequence[float | None]]
    """The values by run, then by epoch."""


@dataclass(frozen=True)
class Confusion:
    """True and predicted classes, counted over all runs of a series."""

    matrix: Sequence[Sequence[int]]
    """Test images by true class (rows) and predicted class (columns)."""
    most_confused: Sequence[tuple[int, int, int]]
    """The largest counts off the diagonal, each as (true class, predicted class, count)."""
    precision: Sequence[float | None]
    """The share of the predictions of each class that are right; None where a class was never predicted."""
    recall: Sequence[float | None]
    """The share of the images of each class that were found; None where a class has no images."""
    images: Sequence[int]
    """Predictions for images of each class."""
    runs: int
    """The number of runs."""


@dataclass(frozen=True)
class Series:
    """One framework's runs of one strategy with the same settings, over their seeds; None for what the runs lack."""

    strategy: str
    series: str
    """The name of the series, as in `Run.series`."""
    backend: str
    seeds: Sequence[int]
    runs: Sequence[int]
    """The numbers of the runs."""
    accuracy: Accuracy
    accuracy_interval: Interval | None
    """The interval of a single run, for other test images; None for several."""
    loss: Loss | None
    curves: Mapping[str, Curve] | None
    """The curve of each of METRICS by name; None where no epoch was trained."""
    confusion: Confusion | None


@dataclass(frozen=True)
class Gain:
    """The accuracy of a series less that of the same framework's series of the baseline strategy."""

    strategy: str
    series: str
    baseline_series: str
    """The name of the baseline's series."""
    seeds: Sequence[int]
    """The seeds that both have predictions of."""
    difference: float
    """The difference on these seeds, or that of the means where there are none."""
    interval: Interval | None
    """None without a common seed."""
    reading: GainReading
    """"noise" where the interval contains 0, "unknown" without one."""


@dataclass(frozen=True)
class Pair:
    """Two series of a strategy, compared on the test images with the seeds of both."""

    strategy: str
    first: str
    """The name of the one series."""
    second: str
    """The name of the other."""
    seeds: Sequence[int]
    predictions: int
    """Pairs of image and seed."""
    predictions_apart: int
    """Those for which the two predict different classes."""
    largest_gap: float
    """The largest difference between their probabilities of a class."""
    better: int
    """Pairs of image and seed that only the first has right."""
    worse: int
    """Pairs of image and seed that only the second has right."""
    difference: float
    """The accuracy of the first less that of the second."""
    interval: Interval
    p_mcnemar: float
    p_seeds_and_images: float
    """The p-value of the test behind the interval."""
    p: float
    """The larger of both p-values."""
    other_settings: Sequence[str]
    """The fields of their specs in which the two differ."""
    p_adjusted: float
    """`p` after Holm's correction over all pairs of the group."""
    reading: PairReading
    """"noise" if `p_adjusted` is not below LEVEL, "networks" where too few seeds speak for the frameworks."""


@dataclass(frozen=True)
class Answer:
    """What a series predicts for one photograph."""

    series: str
    top1: int
    """The index of the predicted class."""
    probability: float
    """The probability of the predicted class."""
    true_probability: float
    """The probability of the true class."""


@dataclass(frozen=True)
class Disagreement:
    """A photograph whose predicted class differs between series with the same seed."""

    name: str
    """The name of the test image."""
    label: int
    """The index of the true class."""
    seed: int
    """The seed of the largest spread."""
    seeds_apart: int
    """The number of seeds with which the series disagree."""
    spread: float
    """The difference between the largest and the smallest probability of the true class."""
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Disagreements:
    """Where the series of a strategy disagree, over the seeds that at least two of them share."""

    seeds: Sequence[int]
    images: int
    """The number of photographs."""
    images_apart: int
    """Those with a disagreement for some seed."""
    predictions: int
    """Pairs of photograph and seed."""
    predictions_apart: int
    """Those with a disagreement."""
    largest_gap: float
    """The largest difference between the probabilities of a class."""
    shown: Sequence[Disagreement]
    """Some photographs, the largest spread first."""


@dataclass(frozen=True)
class Share:
    """How many runs of a series make a mistake."""

    series: str
    seeds: Sequence[int]
    """The seeds that make it."""
    of: int
    """The number of the series' seeds."""


@dataclass(frozen=True)
class Mistake:
    """A photograph that a run is confidently wrong about."""

    name: str
    """The name of the test image."""
    label: int
    """The index of the true class."""
    top1: int
    """The index of the predicted class."""
    probability: float
    """The probability of the predicted class."""
    series: str
    """The series of the most confident run."""
    seed: int
    """The seed of that run."""
    shared: Sequence[Share]
    """The runs of every series that predict the same class."""


@dataclass(frozen=True)
class Mistakes:
    """What the runs of a strategy are wrong about."""

    images: int
    """The number of photographs."""
    images_wrong: int
    """Those that some run has wrong."""
    images_wrong_in_all: int
    """Those that every run has wrong."""
    runs: int
    """The number of runs."""
    shown: Sequence[Mistake]
    """Some photographs, the most confident mistake first."""


@dataclass(frozen=True)
class Group:
    """All about the runs on the same data."""

    number: int
    """The group's number, from 1."""
    names: Sequence[str]
    """The names that the runs have for the data."""
    fingerprint: str | None
    classes: Sequence[str]
    """The class names in the order of their indices."""
    class_to_idx: Mapping[str, int]
    train_images: int | None
    """The number of training images."""
    test_images: int | None
    """The number of test images."""
    runs: Sequence[int]
    """The numbers of the runs."""
    strategies: Sequence[str]
    """The strategies of the runs that count."""
    baseline: str | None
    """The strategy that the others are compared with; None where there is no other, or none to compare with."""
    series: Sequence[Series]
    advantages: Sequence[Gain]
    pairs: Sequence[Pair]
    disagreements: Mapping[str, Disagreements | None]
    """By strategy; None unless two series share a seed."""
    mistakes: Mapping[str, Mistakes]
    """By strategy, of those that have predictions."""
    verdict: Sequence[str] = ()
    """What the runs show, in sentences."""
    differences: Sequence[str] = ()
    """The settings in which the runs differ, in sentences."""


@dataclass(frozen=True)
class Failure:
    """A run that left no record."""

    run: str
    """The name of the run."""
    error: str


@dataclass(frozen=True)
class Check:
    """One check of a crosscheck; distances are relative, to PyTorch in float64."""

    name: str
    passed: bool
    distances: Mapping[str, float | None]
    """The distance of each backend by name; None where it is not finite."""
    allowed: float | None
    """The largest distance that passes; None where a check has no bound."""
    farthest: tuple[str, str, float | None] | None
    """The two backends that are farthest apart, and their distance."""
    note: str


@dataclass(frozen=True)
class Crosscheck:
    """The part of a crosscheck.json that the report shows."""

    path: str
    backends: Sequence[str]
    options: Mapping[str, Any]
    """The options of the crosscheck by name, as its file has them."""
    checks: Sequence[Check]


@dataclass(frozen=True)
class Report:
    """Everything that the report says."""

    report_version: int
    """The version of report.json's fields."""
    made: str
    """UTC time in ISO 8601."""
    command: str | None
    """The command that made the report, quoted for a shell."""
    enough_seeds: int
    """With fewer seeds a difference is one of these trained networks, and hardly of the frameworks."""
    level: float
    """A difference is beyond noise if its adjusted p-value is below this."""
    notes: Sequence[str]
    """What the report left out or kept apart, in sentences."""
    differences: Sequence[str]
    """The machines and versions in which the runs differ, in sentences."""
    data: Sequence[Group]
    """The groups of runs on the same data, the largest first."""
    runs: Sequence[Run]
    failures: Sequence[Failure]
    crosscheck: Crosscheck | None
