"""Plot a sweep: validation accuracy against the varied fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.sweep.study import Result
from common.sweep.vary import Value, Variable
from common.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACY = "validation accuracy"
# Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
# From this ratio of largest to smallest on, a list of numbers is drawn on a logarithmic scale.
WIDE = 20


def write(path: Path, results: Sequence[Result], variables: Sequence[Variable]) -> None:
    """Draw the trials of a sweep into a PNG file.

    Args:
        path: The file.
        results: The trials.
        variables: The varied fields.

    Raises:
        UserError: The file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    figure = draw(results, variables)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def draw(results: Sequence[Result], variables: Sequence[Variable]) -> Figure:
    """Return the figure of a sweep: a map of two variables, otherwise a panel of accuracy against each variable."""
    from matplotlib.figure import Figure

    panels = len(variables) if len(variables) != 2 else 1
    figure = Figure(figsize=(max(6.4, 3.6 * panels), 4.4), layout="constrained")
    if len(variables) == 2:
        draw_map(figure, figure.subplots(), results, variables[0], variables[1])
        return figure
    all_axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    for axes, variable in zip(all_axes, variables, strict=True):
        draw_slice(axes, results, variable)
    all_axes[0].set_ylabel(ACCURACY)
    all_axes[-1].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    return figure


def draw_slice(axes: Axes, results: Sequence[Result], variable: Variable) -> None:
    """Draw accuracy against one variable; diverged trials are crosses at the foot of the panel."""
    scale(axes, "x", variable)
    styles: dict[str, dict[str, Any]] = {
        "complete": {"marker": "o", "color": BLUE},
        "pruned": {"marker": "o", "edgecolors": BLUE, "facecolors": "none"},
        "diverged": {"marker": "x", "color": ORANGE},
    }
    for outcome, style in styles.items():
        chosen = [result for result in results if result.outcome == outcome]
        places = [place(variable, result.values[variable.name]) for result in chosen]
        if outcome == "diverged":
            # The height is in units of the panel, so that the crosses do not stretch the scale of accuracies.
            axes.scatter(places, [0.03] * len(places), transform=axes.get_xaxis_transform(), label=outcome, **style)
        else:
            axes.scatter(places, [result.accuracy or 0.0 for result in chosen], label=outcome, **style)
    # The crosses need room at the foot.
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)


def draw_map(figure: Figure, axes: Axes, results: Sequence[Result], first: Variable, second: Variable) -> None:
    """Draw accuracy over two variables.

    Where every trial lies on the grid, it is a heat map whose cells are the mean of their trials or "diverged".
    Otherwise each trial is a dot, and each diverged trial a cross.

    Args:
        figure: The figure, which gets the colour bar.
        axes: The axes to draw in.
        results: The trials.
        first: The variable along x.
        second: The variable along y.
    """
    scored = [result for result in results if result.accuracy is not None]
    diverged = [result for result in results if result.outcome == "diverged"]
    on_grid = all(
        result.values[variable.name] in variable.grid for variable in (first, second) for result in scored + diverged
    )
    if on_grid:
        cells = np.full((len(second.grid), len(first.grid)), np.nan)
        for row, column in np.ndindex(*cells.shape):
            values = {first.name: first.grid[column], second.name: second.grid[row]}
            found = [result.accuracy for result in scored if result.accuracy is not None and result.values == values]
            if found:
                cells[row, column] = np.mean(found)
                axes.text(column, row, f"{cells[row, column]:.3f}", ha="center", va="center", bbox=BOX)
            elif any(result.values == values for result in diverged):
                axes.text(column, row, "diverged", ha="center", va="center", color=ORANGE, bbox=BOX)
        drawn: Any = axes.imshow(cells, origin="lower", aspect="auto", cmap="viridis")
        name_ticks(axes, "x", first, first.grid)
        name_ticks(axes, "y", second, second.grid)
    else:
        scale(axes, "x", first)
        scale(axes, "y", second)
        across, up = (
            {result.number: place(variable, result.values[variable.name]) for result in scored + diverged}
            for variable in (first, second)
        )
        drawn = axes.scatter(
            [across[result.number] for result in scored], [up[result.number] for result in scored],
            c=[result.accuracy or 0.0 for result in scored], cmap="viridis", s=70, edgecolors=GREY,
        )  # fmt: skip
        axes.scatter(
            [across[result.number] for result in diverged], [up[result.number] for result in diverged],
            marker="x", color=ORANGE, label="diverged",
        )  # fmt: skip
        if diverged:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    if scored:
        figure.colorbar(drawn, ax=axes, label=ACCURACY)


BOX = {"boxstyle": "round", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def place(variable: Variable, value: Value) -> float:
    """Return the place of a value on the axis of its variable: itself, or its number in a list of names.

    >>> place(Variable("optimizer", "list", ("sgd", "adam")), "adam")
    1.0
    """
    return float(value) if variable.is_number else float(variable.values.index(value))


def scale(axes: Axes, which: str, variable: Variable) -> None:
    """Label the axis of a variable, and set its scale and limits so that all its values have room.

    The scale is logarithmic for a logarithmic range, and for a list of positive numbers whose largest is more than
    WIDE times the smallest.

    Args:
        axes: The axes.
        which: Either `x` or `y`.
        variable: The variable.
    """
    if not variable.is_number:
        name_ticks(axes, which, variable, variable.values)
        return
    numbers = [float(value) for value in variable.values]
    wide = variable.kind == "list" and min(numbers) > 0 and max(numbers) > WIDE * min(numbers)
    logarithmic = wide or variable.kind == "log range"
    ends = np.log10([min(numbers), max(numbers)]) if logarithmic else np.array([min(numbers), max(numbers)])
    room = 0.06 * (ends[1] - ends[0]) or 1.0
    limits = np.array([ends[0] - room, ends[1] + room])
    axes.set(**{f"{which}label": variable.name, f"{which}scale": "log" if logarithmic else "linear"})
    axes.set(**{f"{which}lim": 10**limits if logarithmic else limits})


def name_ticks(axes: Axes, which: str, variable: Variable, values: Sequence[Value]) -> None:
    """Label the axis of a variable, and put a tick with its name at the number of each value."""
    labels = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
    axes.set(**{f"{which}label": variable.name, f"{which}ticks": range(len(values)), f"{which}ticklabels": labels})
