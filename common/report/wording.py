"""Write the report's sentences: the verdict, the differences between runs, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.report import runs, statistics
from common.report.data import Advantage, Group, Pair, Run
from common.runs.record import RunRecord, differences
from common.spec.names import BACKENDS

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def verdict(group: Group) -> list[str]:
    """Return what the runs on one data set show, in sentences; nothing within the noise is called a difference."""
    if not group.series:
        return ["No run on this data is complete, so there is nothing to compare."]
    sentences = [*_of_strategies(group), *_of_frameworks(group)]
    fewest = min(len(series.seeds) for series in group.series)
    if fewest < statistics.ENOUGH_SEEDS and len(group.series) > 1:
        seeds = "one seed" if fewest == 1 else f"{_count(fewest)} seeds"
        alike = all(len(series.seeds) == fewest for series in group.series)
        sentences.append(
            f"{_capital(seeds) if alike else f'Only {seeds} in part of the runs'}: differences of a few points need at "
            f"least {_count(statistics.ENOUGH_SEEDS)}, since the next seed may turn them around."
        )
    return sentences


def _of_strategies(group: Group) -> Iterable[str]:
    """Yield what the other strategies gain over the baseline; strategies with the same finding share a sentence."""
    baseline = group.baseline
    if baseline is None:
        accuracies = [series.accuracy.mean for series in group.series]
        low, high = f"{min(accuracies):.3f}", f"{max(accuracies):.3f}"
        reached = low if low == high else f"{low} to {high}"
        yield f"Test accuracy of {group.strategies[0]}: {reached}. There is no other strategy to compare it with."
        return
    alike: dict[tuple[str, str], dict[str, list[float]]] = {}
    for strategy in group.strategies:
        rows = [row for row in group.advantages if row.strategy == strategy]
        if strategy != baseline and not rows:
            alike.setdefault(("none", ""), {})[strategy] = []
        for reading in ("more", "less", "noise", "unknown"):
            if found := [row for row in rows if row.reading == reading]:
                gains = [abs(row.difference) for row in found]
                alike.setdefault((reading, _all_or_named(found, rows)), {})[strategy] = gains
    for (reading, where), gains_of in alike.items():
        who = listed(list(gains_of))
        if reading == "none":
            yield f"No framework has complete runs of both {who} and {baseline}."
        elif reading == "noise":
            yield f"Between {who} and {baseline} there is no difference beyond noise in {where}."
        elif reading == "unknown":
            yield (
                f"Whether {who} and {baseline} differ beyond noise in {where} cannot be told: it takes the predictions "
                "of both, with a seed in common."
            )
        else:
            gain = _points([value for gains in gains_of.values() for value in gains])
            verb = "reaches" if len(gains_of) == 1 else "reach"
            yield f"{_capital(who)} {verb} {gain} {reading} than {baseline} in {where}."


def _of_frameworks(group: Group) -> Iterable[str]:
    """Yield how the frameworks compare in each strategy; strategies with the same finding share a sentence."""
    alike: dict[tuple[str, str], list[str]] = {}
    single: list[str] = []
    of_strategy = {s: [pair for pair in group.pairs if pair.strategy == s] for s in group.strategies}
    for strategy, pairs in of_strategy.items():
        names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
        if not pairs:
            if sum(series.strategy == strategy for series in group.series) > 1:
                alike.setdefault(("unpaired", ""), []).append(strategy)
        elif not any(pair.predictions_apart for pair in pairs):
            alike.setdefault(("same", _frameworks(names)), []).append(strategy)
        elif all(pair.reading == "noise" for pair in pairs):
            alike.setdefault(("noise", _none_of(names)), []).append(strategy)
        else:
            single += _apart(strategy, pairs)
        if fields := sorted({field for pair in pairs for field in pair.other_settings}):
            said = listed([runs.in_words(field) for field in fields])
            single.append(
                f"The runs of {strategy} do not share {said}, so their differences are not the frameworks' alone."
            )
    for (kind, who), strategies in alike.items():
        where = _capital(listed(strategies))
        if kind == "unpaired":
            yield f"{where}: no two series have predictions with the same seed, so none were compared."
        elif kind == "same":
            yield f"{where}: {who} predict the same class for every test image."
        else:
            pairs = [pair for strategy in strategies for pair in of_strategy[strategy]]
            farthest = max(pairs, key=lambda pair: abs(pair.difference))
            which = f" ({farthest.strategy})" if len(strategies) > 1 else ""
            yield (
                f"{where}: {who} beyond noise; the farthest apart are {farthest.first} and {farthest.second}"
                f"{which}, by {_points([abs(farthest.difference)])} (adjusted p = {farthest.p_adjusted:.2g})."
            )
    yield from single


def _apart(strategy: str, pairs: Sequence[Pair]) -> Iterable[str]:
    """Yield which pairs of series of a strategy differ beyond noise, and by how much."""
    apart = [pair for pair in pairs if pair.reading != "noise"]
    orders = [(pair.first, pair.second) if pair.difference > 0 else (pair.second, pair.first) for pair in apart]
    named = [f"{high} over {low}" for high, low in orders]
    found = listed(named if len(named) < 4 else [*named[:3], f"{len(named) - 3} more"])
    by = _points([max(abs(pair.difference) for pair in apart)])
    count = f"{len(apart)} of {len(pairs)} pairs differ" if len(pairs) > 1 else "the two differ"
    yield f"{_capital(strategy)}: {count} beyond noise: {found}; by {'up to ' * (len(apart) > 1)}{by}."
    if any(pair.reading == "networks" for pair in apart):
        yield "That holds for these trained networks; too few seeds to say it of the frameworks."


def setting_differences(records: Sequence[RunRecord]) -> list[str]:
    """Return the fields of their specs in which runs on one data set differ, within and between strategies."""
    sentences = []
    strategies = sorted({record.spec.strategy for record in records}, key=runs.STRATEGIES.index)
    inside: set[str] = set()
    for strategy in strategies:
        own = [record for record in records if record.spec.strategy == strategy]
        found = differences(own)
        inside |= set(found)
        for field, values in found.items():
            named = [record.spec.backend for record in own]
            said = _by_value(zip(map(runs.value_in_words, values), named, strict=True))
            sentences.append(f"Among the runs of {strategy}, {runs.in_words(field)} is {said}.")
    for field, values in differences(records).items() if records else ():
        if field not in inside:
            said = _by_value(zip(map(runs.value_in_words, values), (r.spec.strategy for r in records), strict=True))
            sentences.append(f"Between the strategies, {runs.in_words(field)} is {said}.")
    return sentences


def machine_differences(described: Sequence[Run]) -> list[str]:
    """Return the devices, processors, core counts and package versions in which the runs differ."""
    sentences = []
    for field, noun in (("device", "The device"), ("processor", "The processor"), ("cores", "The number of cores")):
        sentences += _difference(noun, [(getattr(run, field), run.backend) for run in described])
    packages = sorted({package for run in described for package in run.versions})
    for package in packages:
        versions = [(run.versions.get(package), run.backend) for run in described]
        sentences += _difference(f"The version of {package}", [pair for pair in versions if pair[0] is not None])
    return sentences


def _difference(noun: str, values: Sequence[tuple[Any, str]]) -> list[str]:
    """Return a sentence with the values of each framework, or nothing where all are equal."""
    if len({value for value, _ in values}) < 2:
        return []
    return [f"{noun} is {_by_value(((runs.value_in_words(value), name) for value, name in values))}."]


def notes(described: Sequence[Run], groups: int, failures: Mapping[str, str]) -> list[str]:
    """Return what the report of some runs in so many data groups left out or kept apart, and why."""
    sentences = []
    if groups > 1:
        sentences.append(
            f"These runs are on {_count(groups)} different sets of images or classes. Each has a part of its own "
            "below, and nothing is compared across them."
        )
    ended = Counter(run.status for run in described if run.status != "complete")
    if ended or failures:
        parts = [f"{number} {status}" for status, number in ended.items()]
        parts += [f"{len(failures)} without a record"] if failures else []
        sentences.append(
            f"Left out of every mean, because they are not complete: {listed(parts)} of "
            f"{len(described) + len(failures)} runs; they are listed above the commands."
        )
    repeated = [run for run in described if run.status == "complete" and not run.counted]
    if repeated:
        sentences.append(
            f"Of runs that repeat another one with the same seed and settings, only the newest counts: "
            f"{listed([str(run.number) for run in repeated])} in the tables below does not."
        )
    unread = [run for run in described if run.predictions]
    for reason, number in Counter(run.predictions for run in unread).items():
        which = listed([str(run.number) for run in unread if run.predictions == reason])
        sentences.append(
            f"{'Run' if number == 1 else 'Runs'} {which} cannot be compared image by image: {reason}. "
            "The accuracies are those of the record."
        )
    if skipped := sorted({run.skipped_images for run in described if run.skipped_images}):
        sentences.append(f"Unreadable images were left out of some data: {listed(list(map(str, skipped)))}.")
    return sentences


def _by_value(pairs: Iterable[tuple[str, str]]) -> str:
    """Return (value, name) pairs in words, with the names that share a value together.

    >>> _by_value([("1", "torch"), ("2", "jax"), ("1", "keras")])
    '1 in torch and keras, 2 in jax'
    """
    found: dict[str, dict[str, None]] = {}
    for value, name in pairs:
        found.setdefault(value, {})[name] = None
    return ", ".join(f"{value} in {listed(list(names))}" for value, names in found.items())


def _points(differences: Sequence[float]) -> str:
    """Return differences of fractions as percentage points, from the smallest to the largest."""
    low, high = (f"{100 * value:.1f}" for value in (min(differences), max(differences)))
    if low == high:
        return f"{low} percentage points"
    return f"{low} to {high} percentage points"


def _all_or_named(found: Sequence[Advantage], rows: Sequence[Advantage]) -> str:
    """Return the series of the rows found by name, or as "all" where they are all rows and more than two."""
    if len(found) == len(rows) > 2:
        return _frameworks([row.series for row in rows])
    return _named(found)


def _frameworks(names: Sequence[str]) -> str:
    """Return up to two names as they are, more as "all four frameworks", or "series" where settings name them too."""
    if len(names) < 3:
        return listed(names)
    return f"all {_count(len(names))} {'frameworks' if set(names) <= set(BACKENDS) else 'series'}"


def _none_of(names: Sequence[str]) -> str:
    """Return the clause that no two of these series differ."""
    if len(names) == 2:
        return f"{listed(names)} do not differ"
    return f"no two of {_frameworks(names).replace('all', 'the')} differ"


def _named(rows: Sequence[Advantage]) -> str:
    return listed([row.series for row in rows])


def listed(names: Sequence[str]) -> str:
    """Return the names in words.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(number: int) -> str:
    """Return a count as a word below ten, in digits from ten on."""
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
