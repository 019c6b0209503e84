"""Sum up the runs of each series over their seeds, and compare series with each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.contract.results import Predictions
from common.report import runs, statistics
from common.report.confusion import confusion
from common.report.data import Accuracy, Advantage, Curve, Loss, Pair, Run, Series
from common.runs.record import RunRecord

METRICS = ("test_accuracy", "test_loss", "train_accuracy", "loss")


@dataclass(frozen=True)
class Member:
    """A run, its record, and its predictions where they can be used."""

    run: Run
    record: RunRecord
    answers: Predictions | None


@dataclass(frozen=True)
class SeriesRuns:
    """The runs of one series that count, by seed."""

    strategy: str
    name: str
    by_seed: Mapping[int, Member]

    @property
    def first(self) -> Member:
        """The run with the lowest seed."""
        return next(iter(self.by_seed.values()))

    @property
    def answers(self) -> dict[int, Predictions]:
        """The usable predictions by seed."""
        return {seed: m.answers for seed, m in self.by_seed.items() if m.answers is not None}

    @property
    def accuracy(self) -> Accuracy:
        """The test accuracies, which all of them have."""
        values = [m.run.test_accuracy for m in self.by_seed.values() if m.run.test_accuracy is not None]
        return Accuracy(*statistics.mean_and_deviation(values), values)


def by_series(members: Sequence[Member]) -> list[SeriesRuns]:
    """Group the runs that count by series, in the order of the tables."""
    found: dict[tuple[str, str], dict[int, Member]] = {}
    for member in sorted(members, key=lambda member: runs.sort_key(member.run)):
        found.setdefault((member.run.strategy, member.run.series), {})[member.run.seed] = member
    return [SeriesRuns(strategy, name, by_seed) for (strategy, name), by_seed in found.items()]


def summarise(members: SeriesRuns, classes: int) -> Series:
    """Sum up a series over its seeds.

    Args:
        members: The runs of the series.
        classes: The number of classes.

    Returns:
        Accuracy and loss with mean and standard deviation, the curves of METRICS with their mean, and the confusion
        matrix; None for what the runs lack.
    """
    described = [member.run for member in members.by_seed.values()]
    losses = [run.test_loss for run in described if run.test_loss is not None]
    answers = list(members.answers.values())
    return Series(
        strategy=members.strategy,
        series=members.name,
        backend=described[0].backend,
        seeds=[run.seed for run in described],
        runs=[run.number for run in described],
        accuracy=members.accuracy,
        accuracy_interval=described[0].test_accuracy_interval if len(described) == 1 else None,
        loss=Loss(*statistics.mean_and_deviation(losses)) if losses else None,
        curves=_curves([member.record for member in members.by_seed.values()]),
        confusion=confusion(answers, classes) if answers else None,
    )


def _curves(records: Sequence[RunRecord]) -> dict[str, Curve] | None:
    """Return each of METRICS over the epochs, or None where no run has one."""
    trained = [record.epochs for record in records if record.epochs]
    # A complete run has all the epochs of its spec, and runs of other specs are other series.
    epochs = min(map(len, trained), default=0)
    if not epochs:
        return None
    found = {metric: [[getattr(m, metric) for m in record[:epochs]] for record in trained] for metric in METRICS}
    return {metric: Curve(np.mean(values, axis=0).tolist(), values) for metric, values in found.items()}


def advantages(series: Sequence[SeriesRuns], baseline: str) -> list[Advantage]:
    """Subtract from the accuracy of each series that of the same framework's series of the baseline strategy.

    A series counts only where one series of the baseline matches it: that of the same name, or the framework's only
    one.

    Args:
        series: The series of all strategies.
        baseline: The strategy to compare the others with.

    Returns:
        The advantages in the order of the series.
    """
    found = []
    for one in series:
        bases = [s for s in series if s.strategy == baseline and s.first.run.backend == one.first.run.backend]
        same = [s for s in bases if s.name == one.name] or bases
        if one.strategy != baseline and len(same) == 1:
            found.append(_advantage(one, same[0]))
    return found


def _advantage(one: SeriesRuns, base: SeriesRuns) -> Advantage:
    """Subtract the accuracy of the baseline's series on the seeds of both; without any, the means of all seeds."""
    seeds = _shared(one, base)
    found = statistics.difference(_right(one, seeds), _right(base, seeds)) if seeds else None
    reading: Literal["more", "less", "noise", "unknown"] = "unknown"
    if found:
        reading = "noise" if found.low <= 0 <= found.high else "more" if found.mean > 0 else "less"
    return Advantage(
        strategy=one.strategy,
        series=one.name,
        baseline_series=base.name,
        seeds=seeds,
        difference=found.mean if found else one.accuracy.mean - base.accuracy.mean,
        interval=(found.low, found.high) if found else None,
        reading=reading,
    )


def pairs(series: Sequence[SeriesRuns]) -> list[Pair]:
    """Compare every two series of a strategy that share a seed; the p-values are adjusted over all of them."""
    found = [
        (first, second)
        for first, second in itertools.combinations(series, 2)
        if first.strategy == second.strategy and _shared(first, second)
    ]
    results = [statistics.compare(*(_right(one, _shared(*pair)) for one in pair)) for pair in found]
    adjusted = statistics.holm([result.p for result in results])
    return [_pair(*pair, result, p) for pair, result, p in zip(found, results, adjusted, strict=True)]


def _pair(first: SeriesRuns, second: SeriesRuns, result: statistics.Comparison, p_adjusted: float) -> Pair:
    """Describe the comparison of two series that share a seed."""
    seeds = _shared(first, second)
    both = [(first.answers[seed], second.answers[seed]) for seed in seeds]
    ours, theirs = runs.settings(first.first.record), runs.settings(second.first.record)
    apart: Literal["apart", "networks"] = "apart" if len(seeds) >= statistics.ENOUGH_SEEDS else "networks"
    return Pair(
        strategy=first.strategy,
        first=first.name,
        second=second.name,
        seeds=seeds,
        predictions=sum(len(one.labels) for one, _ in both),
        predictions_apart=sum(int((one.top1 != other.top1).sum()) for one, other in both),
        largest_gap=max(float(np.abs(one.probabilities - other.probabilities).max()) for one, other in both),
        better=result.better,
        worse=result.worse,
        difference=result.difference.mean,
        interval=(result.difference.low, result.difference.high),
        p_mcnemar=result.p_mcnemar,
        p_seeds_and_images=result.difference.p,
        p=result.p,
        other_settings=[name for name in ours if ours[name] != theirs[name]],
        p_adjusted=p_adjusted,
        reading="noise" if p_adjusted >= statistics.LEVEL else apart,
    )


def _shared(first: SeriesRuns, second: SeriesRuns) -> list[int]:
    """Return the seeds with which both have usable predictions."""
    return [seed for seed in first.answers if seed in second.answers]


def _right(members: SeriesRuns, seeds: Sequence[int]) -> NDArray[np.bool_]:
    """Return whether each prediction is right, (seeds, images)."""
    return np.stack([members.answers[seed].right for seed in seeds])
