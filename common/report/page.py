"""Render the report as report.html and report.md, with Jinja templates that escape every value."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from common.report import charts, runs, wording
from common.report.data import Accuracy, Advantage, Group, Report, Run, Series

FOLDER = Path(__file__).parent
NONE = "–"
MINUS = "\u2212"

# Runs that agree in these fields share a row of the table of networks and rates, or of machines and versions.
NETWORK = (
    "backend", "strategy", "series", "status", "architecture", "weights", "image_size", "head_shape",
    "source_head_shape", "hotdog_index", "parameters", "trained_parameters", "learning_rate", "loss_reduction",
    "mean_learning_rate",
)  # fmt: skip
MACHINE = ("backend", "versions", "platform", "processor", "cores", "device")

_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|~$]")


def html(report: Report, pictures: Mapping[int, Mapping[str, str] | None]) -> str:
    """Render the report as one HTML file that loads nothing: style, script, charts and photographs are inside.

    Args:
        report: The report, as `common.report.collect` makes it.
        pictures: For the number of each data group, the data URIs of its photographs by the name of the test image,
            or None where the photographs are not on this machine.

    Returns:
        The text of report.html.
    """
    environment = _environment(autoescape=True)
    script = (FOLDER / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    strategies = [name for name in runs.STRATEGIES if any(name in group.strategies for group in report.data)]
    return environment.get_template("page.html").render(
        report=report,
        pictures=pictures,
        # Markup, since style and script are files of this project, and the charts have escaped their text as XML.
        style=Markup((FOLDER / "page.css").read_text()),
        script=Markup(script),
        script_hash=digest,
        strategies=strategies,
        curves=lambda group, metric: [replace(c, svg=Markup(c.svg)) for c in charts.curves(group, metric)],
        accuracies=lambda group: Markup(charts.accuracies(group) or ""),
        key=lambda group, strategy, place: Markup(charts.key(group, strategy, place)),
    )


def markdown(report: Report) -> str:
    """Render the report as Markdown: the same as the page, without charts and photographs."""
    environment = _environment(autoescape=False, finalize=_markdown_value)
    environment.filters["fence"] = _fence
    text = environment.get_template("page.md").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(**options: Any) -> jinja2.Environment:
    """Make a Jinja environment with the filters and functions that the templates use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    environment.filters.update(
        fraction=_fraction, points=_points, p_value=_p_value, percent=_percent, count=_count, memory=_memory,
        short=_short, shape=_shape, scientific=partial(_format, ".1e"),
        one_decimal=partial(_format, ".1f"), apart=_apart, deviation=_deviation,
    )  # fmt: skip
    environment.globals.update(
        metrics=charts.METRICS, rows_of=charts.rows_of, runs_of=_runs_of, frameworks_of=_frameworks_of,
        title_of=_title_of, packages_of=_packages_of, series_of=_series_of, gain_of=_gain_of, numbers=_numbers,
        network_rows=partial(_alike, NETWORK), version_rows=partial(_alike, MACHINE),
        command_rows=partial(_alike, ["command"]),
    )  # fmt: skip
    return environment


def _markdown_value(value: Any) -> Any:
    """Escape Markdown's special characters in the value of a template's expression, and make line breaks spaces."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = _BREAKS.sub(" ", value)
    return _MARKDOWN.sub(lambda match: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(match[0], "\\" + match[0]), text)


def _fence(text: str) -> Markup:
    """Return the text as a code block, whose fence is longer than any run of backticks inside."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")


def _format(specification: str, value: float | None) -> str:
    """Return a number by a format specification such as ".1e", or a dash for None."""
    return NONE if value is None else format(value, specification)


def _fraction(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _deviation(found: Accuracy) -> str:
    """Return "mean ± standard deviation", or the mean alone where there is no deviation.

    >>> _deviation(Accuracy(0.93, 0.01, [0.92, 0.94]))
    '0.930 ± 0.010'
    """
    if found.deviation is None:
        return _fraction(found.mean)
    return f"{_fraction(found.mean)} ± {_fraction(found.deviation)}"


def _points(value: float | None) -> str:
    """Return a difference of fractions in percentage points, with its sign; zero has none, and None is a dash.

    >>> _points(0.0312), _points(0.0001)
    ('+3.1', '0.0')
    """
    if value is None:
        return NONE
    text = f"{100 * value:+.1f}"
    return "0.0" if text[1:] == "0.0" else text.replace("-", MINUS)


def _p_value(value: float) -> str:
    """Return a p-value in two digits, "< 0.001" below that, and "1" from 0.995 on."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.995 else "1"


def _percent(value: float | None) -> str:
    """Return a probability in per cent; only exact 0 and 1 are shown as 0.0 and 100.0."""
    if value is None:
        return NONE
    text = f"{100 * value:.1f}"
    if text in ("0.0", "100.0") and value not in (0, 1):
        text = "< 0.1" if value < 0.5 else "> 99.9"
    return f"{text}\u202f%"


def _apart(value: float) -> str:
    """Return a difference of probabilities in percentage points, or below 0.05 points in scientific notation.

    >>> _apart(0.123), _apart(2e-5)
    ('12.3 percentage points', '2.0e-05')
    """
    return f"{100 * value:.1f} percentage points" if value >= 0.0005 else f"{value:.1e}"


def _count(value: float | None) -> str:
    return NONE if value is None else f"{value:,}"


def _memory(value: float | None) -> str:
    """Return bytes in GB of 1e9 bytes, or a dash for None and 0."""
    return f"{value / 1e9:.2f} GB" if value else NONE


def _short(value: float | None) -> str:
    return NONE if value is None else f"{value:g}"


def _shape(value: Sequence[int] | None) -> str:
    return NONE if value is None else " × ".join(map(str, value))


def _numbers(values: Iterable[int]) -> str:
    """Return whole numbers in rising order, three or more in a row as a range.

    >>> _numbers([0, 1, 2, 3, 4]), _numbers([0, 2, 5, 6, 7, 8, 9])
    ('0 to 4', '0, 2, 5 to 9')
    """
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    said = [f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts]
    return ", ".join(said)


def _runs_of(report: Report, group: Group) -> list[Run]:
    """Return the group's runs in the order of the tables."""
    return sorted((run for run in report.runs if run.group == group.number), key=runs.sort_key)


def _frameworks_of(report: Report) -> list[str]:
    return sorted({run.backend for run in report.runs}, key=runs.backend_order)


def _title_of(report: Report) -> str:
    names = _frameworks_of(report)
    return f"Fine-tuning compared: {wording.listed(names)}" if names else "Fine-tuning: no run left a record"


def _series_of(group: Group, strategy: str, name: str) -> Series | None:
    return next((row for row in group.series if (row.strategy, row.series) == (strategy, name)), None)


def _gain_of(group: Group, strategy: str, name: str) -> Advantage | None:
    return next((row for row in group.advantages if (row.strategy, row.series) == (strategy, name)), None)


def _alike(fields: Sequence[str], chosen: Sequence[Run]) -> list[list[Run]]:
    """Return the runs in lists, each of those that agree in all fields and so share a row of a table."""
    found: dict[str, list[Run]] = {}
    for run in chosen:
        found.setdefault(repr([getattr(run, field) for field in fields]), []).append(run)
    return list(found.values())


def _packages_of(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items() if version)
