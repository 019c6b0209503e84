"""Collect everything that the report says from the records."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.contract.results import Predictions
from common.report import predictions, runs, series, statistics, wording
from common.report.crosscheck import read_crosscheck
from common.report.data import Failure, Group, Report, plain
from common.report.series import Member
from common.runs.record import RunRecord
from common.system.machine import now

REPORT_VERSION = 1


def collect(
    records: Mapping[Path, RunRecord],
    crosscheck: Path | None = None,
    command: Sequence[str] = (),
    failures: Mapping[str, str] | None = None,
) -> Report:
    """Collect everything that the report says.

    A file that is no crosscheck raises UserError.

    Args:
        records: The records by the path of their record.json.
        crosscheck: A crosscheck.json, or None.
        command: The command that makes the report, as its arguments.
        failures: The error of each run that left no record, by the name of the run.

    Returns:
        The report, with finite numbers and text that UTF-8 can write.
    """
    records, failures = runs.in_order(records), failures or {}
    numbers = {path: number for number, path in enumerate(records, 1)}
    parts = [
        _members(number, {path: records[path] for path in paths}, numbers)
        for number, paths in enumerate(runs.by_data(records), 1)
    ]
    described = [member.run for members in parts for member in members]
    groups = [_group(members) for members in parts]
    report: Report = plain(
        Report(
            report_version=REPORT_VERSION,
            made=now(),
            command=shlex.join(command) if command else None,
            enough_seeds=statistics.ENOUGH_SEEDS,
            level=statistics.LEVEL,
            notes=wording.notes(described, len(groups), failures),
            differences=wording.machine_differences(described),
            data=groups,
            runs=described,
            failures=[Failure(run, error) for run, error in failures.items()],
            crosscheck=read_crosscheck(crosscheck) if crosscheck else None,
        )
    )
    return report


def _members(number: int, records: Mapping[Path, RunRecord], numbers: Mapping[Path, int]) -> list[Member]:
    """Describe the runs on the same data and read their predictions.

    Args:
        number: The number of the data group.
        records: Its records.
        numbers: The number of each run.

    Returns:
        The runs in the order of the records.
    """
    counted = runs.newest(records)
    classes = runs.classes_of(next(iter(records.values())))
    variants = dict(zip(counted, runs.variants(list(counted.values())), strict=True))
    answers = predictions.read_all(counted, classes)
    members = []
    for path, record in records.items():
        answer = answers.get(path)
        run = replace(
            runs.describe(numbers[path], path, record, number),
            counted=path in counted,
            series=", ".join(filter(None, (record.spec.backend, variants.get(path)))),
            predictions=answer if isinstance(answer, str) else None,
        )
        members.append(Member(run, record, answer if isinstance(answer, Predictions) else None))
    return members


def _group(members: Sequence[Member]) -> Group:
    """Collect all about the runs on the same data."""
    data, classes = members[0].record.data, runs.classes_of(members[0].record)
    counted = [member for member in members if member.run.counted]
    found = series.by_series(counted)
    strategies = [name for name in runs.STRATEGIES if any(one.strategy == name for one in found)]
    baseline = next((name for name in ("scratch", "fine-tune") if name in strategies and len(strategies) > 1), None)
    answers = {
        strategy: {one.name: one.answers for one in found if one.strategy == strategy and one.answers}
        for strategy in strategies
    }
    group = Group(
        number=members[0].run.group,
        names=list(dict.fromkeys(str(member.record.data.get("name")) for member in members)),
        fingerprint=data.get("fingerprint"),
        classes=list(classes),
        class_to_idx=data.get("class_to_idx", {}),
        train_images=data.get("train_images"),
        test_images=data.get("test_images"),
        runs=[member.run.number for member in members],
        strategies=strategies,
        baseline=baseline,
        series=[series.summarise(one, len(classes)) for one in found],
        advantages=series.advantages(found, baseline) if baseline else [],
        pairs=series.pairs(found),
        disagreements={strategy: predictions.disagreements(own) for strategy, own in answers.items()},
        mistakes={strategy: predictions.mistakes(own) for strategy, own in answers.items() if own},
        verdict=[],
        differences=wording.setting_differences([member.record for member in counted]),
    )
    return replace(group, verdict=wording.verdict(group))
