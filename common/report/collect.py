"""Collect everything that the report says from the records, as plain data: the content of report.json."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.contract.results import Predictions
from common.report import predictions, runs, statistics, wording
from common.runs.record import RunRecord
from common.system.errors import UserError
from common.system.machine import now

REPORT_VERSION = 1
METRICS = ("test_accuracy", "test_loss", "train_accuracy", "loss")

# Neither XML nor a terminal takes these characters, and a lone surrogate cannot be written as UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def collect(
    records: Mapping[Path, RunRecord],
    crosscheck: Path | None = None,
    command: Sequence[str] = (),
    failures: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Collect everything that the report says.

    A file that is no crosscheck raises UserError.

    Args:
        records: The records by the path of their record.json.
        crosscheck: A crosscheck.json, or None.
        command: The command that makes the report, as its arguments.
        failures: The error of each run that left no record, by the name of the run.

    Returns:
        The content of report.json: values of JSON only, finite numbers, and text that UTF-8 can write.
    """
    records = runs.in_order(records)
    described = {path: runs.describe(number, path, record) for number, (path, record) in enumerate(records.items(), 1)}
    groups = [
        _group(number, {path: records[path] for path in paths}, described)
        for number, paths in enumerate(runs.by_data(records), 1)
    ]
    report = {
        "report_version": REPORT_VERSION,
        "made": now(),
        "command": shlex.join(command) if command else None,
        "enough_seeds": statistics.ENOUGH_SEEDS,
        "level": statistics.LEVEL,
        "notes": wording.notes(list(described.values()), groups, failures or {}),
        "differences": wording.machine_differences(list(described.values())),
        "data": groups,
        "runs": list(described.values()),
        "failures": [{"run": run, "error": error} for run, error in (failures or {}).items()],
        "crosscheck": read_crosscheck(crosscheck) if crosscheck else None,
    }
    return {name: plain(value) for name, value in report.items()}


def plain(value: Any) -> Any:
    """Return the value as JSON can hold it: None for numbers that are not finite, U+FFFD for unprintable characters.

    >>> plain({"loss": float("nan"), "seeds": (0, 1)})
    {'loss': None, 'seeds': [0, 1]}
    """
    if isinstance(value, dict):
        return {plain(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_crosscheck(path: Path) -> dict[str, Any]:
    """Read the part of a crosscheck.json that the report shows.

    Args:
        path: The file that `scripts.crosscheck` wrote.

    Returns:
        Its `path`, `backends`, `options` and `checks`.

    Raises:
        UserError: There is no such file, or it is no crosscheck.
    """
    try:
        content = json.loads(path.read_text())
        checks = [
            {
                "name": str(check["name"]),
                "passed": bool(check["passed"]),
                "distances": {str(name): float(value) for name, value in check["distances"].items()},
                "allowed": None if check["allowed"] is None else float(check["allowed"]),
                "farthest": check["farthest"] and [*map(str, check["farthest"][:2]), float(check["farthest"][2])],
                "note": str(check["note"]),
            }
            for check in content["checks"]
        ]
        options = {str(name): value for name, value in content["options"].items()}
        return {"path": str(path), "backends": list(content["backends"]), "options": options, "checks": checks}
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such crosscheck; `python3 -m scripts.crosscheck` makes one") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: not what `python3 -m scripts.crosscheck` writes: {error!r}") from error


def _group(number: int, records: Mapping[Path, RunRecord], described: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Collect all about the runs on the same data.

    Args:
        number: The group's number, from 1.
        records: The group's records.
        described: The descriptions of all runs; those of the group get their `group`, `series` and `predictions`.

    Returns:
        The group's entry under "data" in report.json.
    """
    first = next(iter(records.values()))
    classes = runs.classes_of(first)
    for path in records:
        described[path].update(group=number, series=described[path]["backend"], predictions=None)
    _choose_counted(records, described)
    counted = [path for path in records if described[path]["counted"]]
    for path, variant in zip(counted, runs.variants([records[path] for path in counted]), strict=True):
        described[path]["series"] = ", ".join(filter(None, (records[path].spec.backend, variant)))
    answers = _answers({path: records[path] for path in counted}, described, classes)
    found: dict[tuple[str, str], dict[int, Path]] = {}
    for path in sorted(counted, key=lambda p: _order(described[p])):
        run = described[path]
        found.setdefault((run["strategy"], run["series"]), {})[run["seed"]] = path
    strategies = [name for name in runs.STRATEGIES if any(strategy == name for strategy, _ in found)]
    by_series = {key: {s: answers[p] for s, p in paths.items() if p in answers} for key, paths in found.items()}
    baseline = next((name for name in ("scratch", "fine-tune") if name in strategies), None)
    group: dict[str, Any] = {
        "number": number,
        "names": list(dict.fromkeys(str(record.data.get("name")) for record in records.values())),
        "fingerprint": first.data.get("fingerprint"),
        "classes": list(classes),
        "class_to_idx": first.data.get("class_to_idx", {}),
        "train_images": first.data.get("train_images"),
        "test_images": first.data.get("test_images"),
        "runs": [described[path]["number"] for path in records],
        "strategies": strategies,
        "baseline": baseline if len(strategies) > 1 else None,
        "series": [
            _series(key, [(described[p], records[p]) for p in paths.values()], list(by_series[key].values()), classes)
            for key, paths in found.items()
        ],
    }
    group["advantages"] = _advantages(group, by_series)
    group["pairs"] = _pairs(by_series, {key: [records[p] for p in paths.values()] for key, paths in found.items()})
    answered = {s: {name: a for (strategy, name), a in by_series.items() if strategy == s and a} for s in strategies}
    group["disagreements"] = {s: predictions.disagreements(of_strategy) for s, of_strategy in answered.items()}
    group["mistakes"] = {s: predictions.mistakes(of_strategy) for s, of_strategy in answered.items() if of_strategy}
    group["verdict"] = wording.verdict(group)
    group["differences"] = wording.setting_differences([records[path] for path in counted])
    return group


def _order(run: dict[str, Any]) -> tuple[Any, ...]:
    """Return the sort key of a run: its strategy, framework, series and seed."""
    backend = runs.backend_order(run["backend"])
    return runs.STRATEGIES.index(run["strategy"]), backend, run["series"], run["seed"]


def _choose_counted(records: Mapping[Path, RunRecord], described: dict[Path, dict[str, Any]]) -> None:
    """Let only the newest of runs that differ in nothing, seed included, count: a repetition is no further seed."""
    newest: dict[str, Path] = {}
    for path, record in sorted(records.items(), key=lambda item: item[1].started):
        if described[path]["counted"]:
            same = json.dumps([*runs.key_of(record), record.spec.seed, runs.settings(record)], sort_keys=True)
            if same in newest:
                described[newest[same]]["counted"] = False
            newest[same] = path


def _answers(
    records: Mapping[Path, RunRecord], described: dict[Path, dict[str, Any]], classes: tuple[str, ...]
) -> dict[Path, Predictions]:
    """Read the predictions that most runs share the images of, so that all are of the same images in the same order.

    Args:
        records: The records of the runs that count.
        described: The descriptions of the runs; where predictions are left out, `predictions` says why.
        classes: The class names in the order of their indices.

    Returns:
        The predictions by the path of their record.
    """
    found = {path: predictions.read(path, record, classes) for path, record in records.items()}
    images = Counter(
        (answer.names, tuple(answer.labels.tolist())) for answer in found.values() if isinstance(answer, Predictions)
    )
    usual = images.most_common(1)[0][0] if images else None
    kept = {}
    for path, answer in found.items():
        if isinstance(answer, Predictions) and (answer.names, tuple(answer.labels.tolist())) != usual:
            answer = "the test images are others than those of most runs on this data"
        if isinstance(answer, Predictions):
            kept[path] = answer
        else:
            described[path]["predictions"] = answer
    return kept


def _series(
    key: tuple[str, str],
    members: Sequence[tuple[dict[str, Any], RunRecord]],
    answers: Sequence[Predictions],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Summarise one series over its seeds: one framework's runs of one strategy with the same settings.

    Args:
        key: The strategy and the name of the series.
        members: The description and the record of each run.
        answers: The predictions of the runs that have usable ones.
        classes: The class names in the order of their indices.

    Returns:
        The series' entry in report.json: accuracy and loss with mean and standard deviation, the curves of METRICS
        with their mean, and the confusion matrix; None for what its runs lack.
    """
    strategy, name = key
    accuracies = [run["test_accuracy"] for run, _ in members]
    losses = [run["test_loss"] for run, _ in members if run["test_loss"] is not None]
    mean, deviation = statistics.mean_and_deviation(accuracies)
    trained = [record.epochs for _, record in members if record.epochs]
    # A complete run has all the epochs of its spec, and runs of other specs are other series.
    epochs = min(map(len, trained), default=0)
    curves = {
        metric: [[getattr(metrics, metric) for metrics in record[:epochs]] for record in trained] for metric in METRICS
    }
    return {
        "strategy": strategy,
        "series": name,
        "backend": members[0][0]["backend"],
        "seeds": [run["seed"] for run, _ in members],
        "runs": [run["number"] for run, _ in members],
        "accuracy": {"mean": mean, "deviation": deviation, "values": accuracies},
        "accuracy_interval": members[0][0]["test_accuracy_interval"] if len(members) == 1 else None,
        "loss": dict(zip(("mean", "deviation"), statistics.mean_and_deviation(losses), strict=True))
        if losses
        else None,
        "curves": {
            metric: {"mean": np.mean(values, axis=0).tolist(), "runs": values} for metric, values in curves.items()
        }
        if epochs
        else None,
        "confusion": predictions.confusion(answers, len(classes)) if answers else None,
    }


def _advantages(
    group: dict[str, Any], answers: Mapping[tuple[str, str], Mapping[int, Predictions]]
) -> list[dict[str, Any]]:
    """Subtract from the accuracy of each series that of the same framework's series of the baseline strategy.

    A series counts only where one series of the baseline matches it: that of the same name, or the framework's only
    one.

    Args:
        group: The group's entry in report.json so far.
        answers: The predictions by strategy and series, then by seed.

    Returns:
        A row for each series, with the difference on the seeds of both, its 95 % interval, and as `reading` "more",
        "less", or "noise" where the interval contains 0. Without a common seed with predictions the difference is
        that of the means, and the reading "unknown".
    """
    if group["baseline"] is None:
        return []
    found = []
    for series in group["series"]:
        if series["strategy"] == group["baseline"]:
            continue
        bases = [s for s in group["series"] if (s["strategy"], s["backend"]) == (group["baseline"], series["backend"])]
        same = [s for s in bases if s["series"] == series["series"]] or bases
        if len(same) != 1:
            continue
        base = same[0]
        one, other = answers[series["strategy"], series["series"]], answers[base["strategy"], base["series"]]
        seeds = [seed for seed in one if seed in other]
        row: dict[str, Any] = {
            "strategy": series["strategy"],
            "series": series["series"],
            "baseline_series": base["series"],
            "seeds": seeds,
            "difference": series["accuracy"]["mean"] - base["accuracy"]["mean"],
            "interval": None,
            "reading": "unknown",
        }
        if seeds:
            result = statistics.difference(*(np.stack([a[seed].right for seed in seeds]) for a in (one, other)))
            reading = "noise" if result.low <= 0 <= result.high else "more" if result.mean > 0 else "less"
            row.update(difference=result.mean, interval=[result.low, result.high], reading=reading)
        found.append(row)
    return found


def _pairs(
    answers: Mapping[tuple[str, str], Mapping[int, Predictions]], records: Mapping[tuple[str, str], Sequence[RunRecord]]
) -> list[dict[str, Any]]:
    """Compare every two series of a strategy on the seeds of both.

    Args:
        answers: The predictions by strategy and series, then by seed.
        records: The records by strategy and series.

    Returns:
        A row for each pair that shares a seed. `p_adjusted` is Holm's over all rows; `reading` is "noise" if it is
        not below LEVEL, else "apart", or "networks" where there are too few seeds to say it of the frameworks.
    """
    found: list[dict[str, Any]] = []
    for (one, first), (other, second) in itertools.combinations(answers.items(), 2):
        seeds = [seed for seed in first if seed in second]
        if one[0] != other[0] or not seeds:
            continue
        result = statistics.compare(*(np.stack([a[seed].right for seed in seeds]) for a in (first, second)))
        apart = sum(int((first[seed].top1 != second[seed].top1).sum()) for seed in seeds)
        gap = max(float(np.abs(first[seed].probabilities - second[seed].probabilities).max()) for seed in seeds)
        ours, theirs = runs.settings(records[one][0]), runs.settings(records[other][0])
        found.append(
            {
                "strategy": one[0],
                "first": one[1],
                "second": other[1],
                "seeds": seeds,
                "predictions": len(seeds) * len(first[seeds[0]].labels),
                "predictions_apart": apart,
                "largest_gap": gap,
                "better": result.better,
                "worse": result.worse,
                "difference": result.difference.mean,
                "interval": [result.difference.low, result.difference.high],
                "p_mcnemar": result.p_mcnemar,
                "p_seeds_and_images": result.difference.p,
                "p": result.p,
                "other_settings": [name for name in ours if ours[name] != theirs[name]],
            }
        )
    for pair, p in zip(found, statistics.holm([pair["p"] for pair in found]), strict=True):
        enough = len(pair["seeds"]) >= statistics.ENOUGH_SEEDS
        pair["p_adjusted"] = p
        pair["reading"] = "noise" if p >= statistics.LEVEL else "apart" if enough else "networks"
    return found
