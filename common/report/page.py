"""report.json -> report.html and report.md, by Jinja templates that escape every value."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from common.report import charts, runs, wording

FOLDER = Path(__file__).parent
NONE = "–"
MINUS = "\u2212"

_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|~$]")


def html(report: Mapping[str, Any], pictures: Mapping[int, Mapping[str, str] | None]) -> str:
    """The page: one file that loads nothing. `pictures`: number of a data group -> name of a test image -> data URI, or
    None where the photographs are not on this machine."""
    environment = _environment(autoescape=True)
    script = (FOLDER / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    strategies = [name for name in runs.STRATEGIES if any(name in group["strategies"] for group in report["data"])]
    return environment.get_template("page.html").render(
        report=report,
        pictures=pictures,
        # Markup: these two are part of this project, and so are the charts, whose text is escaped as XML.
        style=Markup((FOLDER / "page.css").read_text()),
        script=Markup(script),
        script_hash=digest,
        strategies=strategies,
        curves=lambda group, metric: [{**c, "svg": Markup(c["svg"])} for c in charts.curves(group, metric)],
        accuracies=lambda group: Markup(charts.accuracies(group) or ""),
        key=lambda group, strategy, place: Markup(charts.key(group, strategy, place)),
    )


def markdown(report: Mapping[str, Any]) -> str:
    """The same as Markdown, without charts and pictures."""
    environment = _environment(autoescape=False, finalize=_markdown_value)
    environment.filters["fence"] = _fence
    text = environment.get_template("page.md").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(**options: Any) -> jinja2.Environment:
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
        metrics=charts.METRICS, rows_of=charts.rows_of, runs_of=_runs_of, network_rows=_network_rows,
        version_rows=_version_rows, command_rows=_command_rows, frameworks_of=_frameworks_of, title_of=_title_of,
        packages_of=_packages_of, series_of=_series_of, gain_of=_gain_of, numbers=_numbers,
    )  # fmt: skip
    return environment


def _markdown_value(value: Any) -> Any:
    """What an expression of the Markdown template becomes: text whose special characters stand for themselves."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = _BREAKS.sub(" ", value)
    return _MARKDOWN.sub(lambda match: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(match[0], "\\" + match[0]), text)


def _fence(text: str) -> Markup:
    """A code block: its fence is longer than any row of backticks inside."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")


def _format(specification: str, value: float | None) -> str:
    return NONE if value is None else format(value, specification)


def _fraction(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _deviation(found: Mapping[str, Any] | None) -> str:
    """Mean and standard deviation, or the mean alone."""
    if found is None:
        return NONE
    if found["deviation"] is None:
        return _fraction(found["mean"])
    return f"{_fraction(found['mean'])} ± {_fraction(found['deviation'])}"


def _points(value: float | None) -> str:
    """A difference of fractions in percentage points, with its sign; zero has none."""
    if value is None:
        return NONE
    text = f"{100 * value:+.1f}"
    return "0.0" if text[1:] == "0.0" else text.replace("-", MINUS)


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.995 else "1"


def _percent(value: float | None) -> str:
    """A probability in per cent, as 0 or 100 only if it is."""
    if value is None:
        return NONE
    text = f"{100 * value:.1f}"
    if text in ("0.0", "100.0") and value not in (0, 1):
        text = "< 0.1" if value < 0.5 else "> 99.9"
    return f"{text}\u202f%"


def _apart(value: float) -> str:
    """How far apart two probabilities are, in percentage points where that says something."""
    return f"{100 * value:.1f} percentage points" if value >= 0.0005 else f"{value:.1e}"


def _count(value: float | None) -> str:
    return NONE if value is None else f"{value:,}"


def _memory(value: float | None) -> str:
    """Bytes in GB."""
    return f"{value / 1e9:.2f} GB" if value else NONE


def _short(value: float | None) -> str:
    return NONE if value is None else f"{value:g}"


def _shape(value: Sequence[int] | None) -> str:
    return NONE if value is None else " × ".join(map(str, value))


def _numbers(values: Sequence[int]) -> str:
    """ "0 to 4", or "0, 2, 5 to 9"."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    said = [f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts]
    return ", ".join(said)


def _runs_of(report: Mapping[str, Any], group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The group's runs in the order of the tables."""
    found = [run for run in report["runs"] if run["group"] == group["number"]]
    return sorted(
        found,
        key=lambda run: (
            runs.STRATEGIES.index(run["strategy"]), runs.backend_order(run["backend"]), run["series"], run["seed"],
        ),
    )  # fmt: skip


def _frameworks_of(report: Mapping[str, Any]) -> list[str]:
    return sorted({run["backend"] for run in report["runs"]}, key=runs.backend_order)


def _title_of(report: Mapping[str, Any]) -> str:
    names = _frameworks_of(report)
    return f"Fine-tuning compared: {wording.listed(names)}" if names else "Fine-tuning: no run left a record"


def _series_of(group: Mapping[str, Any], strategy: str, name: str) -> dict[str, Any] | None:
    return _found(group["series"], strategy, name)


def _gain_of(group: Mapping[str, Any], strategy: str, name: str) -> dict[str, Any] | None:
    return _found(group["advantages"], strategy, name)


def _found(among: Sequence[dict[str, Any]], strategy: str, name: str) -> dict[str, Any] | None:
    return next((row for row in among if (row["strategy"], row["series"]) == (strategy, name)), None)


def _network_rows(chosen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The runs' networks and rates: runs of one framework and strategy that differ in none of it share a row."""
    fields = (
        "backend", "strategy", "series", "status", "architecture", "weights", "image_size", "head_shape",
        "source_head_shape", "hotdog_index", "parameters", "trained_parameters", "learning_rate", "loss_reduction",
        "mean_learning_rate",
    )  # fmt: skip
    return _merged(chosen, fields)


def _version_rows(chosen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Machines and versions of the runs, with the runs that share them."""
    return _merged(chosen, ("backend", "versions", "platform", "processor", "cores", "device"))


def _merged(chosen: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for run in chosen:
        values = {field: run[field] for field in fields}
        row = found.setdefault(repr(values), {**values, "seeds": [], "runs": []})
        row["seeds"] = sorted({*row["seeds"], run["seed"]})
        row["runs"].append(run["number"])
    return list(found.values())


def _command_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each command once, with the runs it made."""
    found: dict[str | None, list[dict[str, Any]]] = {}
    for run in report["runs"]:
        found.setdefault(run["command"], []).append(run)
    return [{"command": command, "members": members} for command, members in found.items()]


def _packages_of(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items() if version)
