"""Draw the report's charts as SVG whose colours are CSS variables."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.report.data import Curve, Group, Series

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

# Matplotlib accepts only colours: these are placeholders, and the variables of page.css replace them in the SVG.
INK, MUTED, GRID = "#0a0a01", "#0a0a02", "#0a0a03"
SERIES_COLORS = tuple(f"#0a0b0{number}" for number in range(1, 7))
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES_COLORS, 1)},
}
_PLACEHOLDER = re.compile("|".join(_VARIABLES))

# Colour, dash and marker each tell up to six strategies apart, so that one of the three is enough.
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2.5), (1.5, 2), (7, 2, 1.5, 2), (3, 1.5), (9, 3))
MARKERS = ("o", "s", "^", "D", "v", "P")

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "lines.linewidth": 2.0,
}
METRICS = {
    "test_accuracy": "Test accuracy",
    "test_loss": "Test loss",
    "train_accuracy": "Training accuracy",
    "loss": "Training loss",
}


@dataclass(frozen=True)
class Chart:
    """The chart of a series, as an SVG element."""

    series: str
    backend: str
    svg: str


def rows_of(group: Group) -> list[str]:
    """Return the names of the series, each once."""
    return list(dict.fromkeys(series.series for series in group.series))


def curves(group: Group, metric: str) -> list[Chart]:
    """Draw a small chart of a metric over the epochs for each series.

    A chart shows the seeds and their mean for every strategy, and the means of the other series in grey. All charts
    share the limits of their axes.

    Args:
        group: A data group of the report.
        metric: One of METRICS.

    Returns:
        The charts; none where no run has a finite value.
    """
    trained = [(series, series.curves[metric]) for series in group.series if series.curves]
    values = [v for _, curve in trained for run in curve.runs for v in run if math.isfinite(v)]
    if not values:
        return []
    pad = max(0.05 * (max(values) - min(values)), 0.005)
    limits = (min(values) - pad, max(values) + pad)
    epochs = max(len(curve.mean) for _, curve in trained)
    charts = []
    for number, row in enumerate(rows_of(group)):
        own = [(series, curve) for series, curve in trained if series.series == row]
        if not own:
            continue
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=(3.6, 2.5))
            axes = figure.add_axes((0.13, 0.19, 0.86, 0.79))
            for series, curve in trained:
                if series.series != row:
                    numbers = range(1, len(curve.mean) + 1)
                    axes.plot(numbers, curve.mean, color=MUTED, lw=1, alpha=0.35, gid=_gid(series))
            for series, curve in own:
                _curve(axes, series, curve, group.strategies.index(series.strategy))
            axes.set_ylim(limits)
            axes.set_xlim(0.75, epochs + 0.25)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=8))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.grid(visible=False, axis="x")
            ends = [f"{series.strategy} ends at {curve.mean[-1]:.3f}" for series, curve in own]
            text = (f"{METRICS[metric]} of {row} over the epochs", "; ".join(ends))
            svg = _svg(figure, f"g{group.number}-{metric}-{number}", *text)
            charts.append(Chart(row, own[0][0].backend, svg))
    return charts


def _curve(axes: Axes, series: Series, curve: Curve, index: int) -> None:
    """Draw the mean of a series and, behind it, a thin line for each seed where there are several."""
    color, dashes, marker = (choice[index % 6] for choice in (SERIES_COLORS, DASHES, MARKERS))
    epochs = range(1, len(curve.mean) + 1)
    if len(curve.runs) > 1:
        for run in curve.runs:
            axes.plot(epochs, run, color=color, lw=0.9, alpha=0.45, gid=_gid(series))
    axes.plot(epochs, curve.mean, color=color, dashes=dashes, marker=marker, markersize=4.5, gid=_gid(series), zorder=3)


def accuracies(group: Group) -> str | None:
    """Draw the test accuracies: a row for each series, and in it each strategy.

    A strategy shows its mean, a line of one standard deviation to each side (of a single run: its 95 % interval), and
    a tick for every seed.

    Args:
        group: A data group of the report.

    Returns:
        The SVG element, or None where the group has no series.
    """
    rows, strategies = rows_of(group), group.strategies
    if not rows:
        return None
    # Two strategies rarely overlap on one line; from three on each has a line of its own.
    step = 0.8 / len(strategies) if len(strategies) > 2 else 0.0
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 0.65 + (0.85 if step else 0.44) * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for series in group.series:
            index = strategies.index(series.strategy)
            y = rows.index(series.series) + (index - (len(strategies) - 1) / 2) * step
            _mean_and_seeds(axes, series, index, y, drop=0.0 if step else 0.24)
        axes.set_yticks(range(len(rows)), [row if len(row) < 34 else f"{row[:32]}…" for row in rows])
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=12)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
        axes.set_xlabel("test accuracy")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        text = "; ".join(f"{s.series}, {s.strategy}: {s.accuracy.mean:.3f}" for s in group.series)
        return _svg(figure, f"g{group.number}-accuracies", "Test accuracy of each framework and strategy", text)


def _mean_and_seeds(axes: Axes, series: Series, index: int, y: float, drop: float) -> None:
    """Draw one series at height `y`: the mean, its line, and the ticks of several seeds `drop` below."""
    color, marker = SERIES_COLORS[index % 6], MARKERS[index % 6]
    accuracy = series.accuracy
    mean, deviation = accuracy.mean, accuracy.deviation or 0.0
    low, high = series.accuracy_interval or (mean - deviation, mean + deviation)
    axes.plot([low, high], [y, y], color=color, lw=2, alpha=0.5, gid=_gid(series))
    axes.plot([mean], [y], color=color, marker=marker, markersize=6.5, gid=_gid(series), zorder=4)
    if len(accuracy.values) > 1:
        heights = [y + drop] * len(accuracy.values)
        axes.plot(accuracy.values, heights, "|", markersize=6, color=color, gid=_gid(series))


def key(group: Group, strategy: str, place: str) -> str:
    """Draw the line and marker of a strategy as an SVG element, for the legend at one place of the page."""
    index = group.strategies.index(strategy)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(0.5, 0.2))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot(
            [0, 1, 2], [0, 0, 0], color=SERIES_COLORS[index % 6], dashes=DASHES[index % 6], marker=MARKERS[index % 6],
            markevery=[1], markersize=5,
        )  # fmt: skip
        return _svg(figure, f"g{group.number}-{place}-{index}", None, None)


def _gid(series: Series) -> str:
    """Return the id that `_adapt` turns into the attribute `data-strategy`, by which the page filters."""
    return f"strategy:{series.strategy}"


def _svg(figure: Figure, prefix: str, title: str | None, description: str | None) -> str:
    """Return the figure as an SVG element that several can share a page with.

    Args:
        figure: The figure.
        prefix: The beginning of all ids inside, unique on the page.
        title: The accessible name of the image; None hides the image from screen readers.
        description: The accessible description; used with a title only.

    Returns:
        The element's text, with CSS variables for its colours.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata"):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, prefix)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("focusable", "false")
    if title is None:
        root.set("aria-hidden", "true")
    else:
        root.set("role", "img")
        root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
        for position, (tag, text) in enumerate((("title", title), ("desc", description))):
            element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{prefix}-{tag}"})
            element.text = text
            root.insert(position, element)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, prefix: str) -> None:
    """Give ids and references the prefix, strategies their attribute, and colours their CSS variables."""
    for name, value in list(element.attrib.items()):
        if name == "id" and value.startswith("strategy:"):
            del element.attrib[name]
            element.set("data-strategy", value.removeprefix("strategy:"))
        elif name == "id":
            element.set(name, f"{prefix}-{value}")
        elif name == f"{{{XLINK}}}href" and value.startswith("#"):
            element.set(name, f"#{prefix}-{value[1:]}")
        else:
            value = value.replace("url(#", f"url(#{prefix}-")
            element.set(name, _PLACEHOLDER.sub(lambda match: _VARIABLES[match.group()], value))
