"""The report's curves, as SVG data URIs in a light and a dark version."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsareid.runs.records import Row

# Readable on white and on near-black, and distinct for colour-blind readers (after Okabe and Ito).
COLOURS = ("#2b7bba", "#e07b1a", "#1f9e77", "#c5558f", "#8f7ad6", "#b39516", "#5aa9d6", "#8a8f98")
_TEXT = {"light": "#2a3038", "dark": "#d5dae1"}
_GRID = {"light": "#e3e6ea", "dark": "#343a42"}
_POINTS = 400  # the most that a curve has, so that the page stays small

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Plot:
    """A plot in a light and a dark version, and its alternative text."""

    title: str
    light: str  # data URI
    dark: str  # data URI
    alt: str


def cmc_plot(rows: Sequence[Row]) -> Plot:
    """CMC of every row of the table, in per cent, up to rank 20."""

    def draw(axes: Axes) -> None:
        for number, row in enumerate(rows):
            curve = 100 * np.asarray(row.cmc[:20])
            colour, again = COLOURS[number % len(COLOURS)], number >= len(COLOURS)
            style = "--" if again else "-"
            axes.plot(np.arange(1, len(curve) + 1), curve, style, color=colour, label=row.name)
        axes.set(xlabel="rank", ylabel="queries with a match, %", ylim=(0, 102), xlim=(1, 20))
        axes.set_xticks([1, 5, 10, 15, 20])
        # Above the curves: inside, some curve always runs through it.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    words = "; ".join(f"{row.name} {100 * row.rank(1):.1f} % at rank 1" for row in rows)
    return _render("CMC", draw, f"CMC curves: {words}")


def rows_plot(title: str, rows: Sequence[tuple[str, Sequence[float], float | None]]) -> Plot:
    """Rows of a table in one plot: a dot for each seed, a bar at their mean, the paper's figure.

    Args:
        rows: name, figures of the runs, the paper's figure or None; all in per cent.
    """

    def draw(axes: Axes) -> None:
        for y, (_, own, paper) in enumerate(rows):
            if own:
                axes.plot([np.mean(own)] * 2, [y - 0.3, y + 0.3], color=COLOURS[0], linewidth=2.5)
            axes.plot(own, [y] * len(own), "o", color=COLOURS[0], alpha=0.6, markersize=5)
            if paper is not None:
                axes.plot([paper], [y], "D", color=COLOURS[1], markersize=6, fillstyle="none")
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set(xlabel=title + ", %", ylim=(len(rows) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")

    words = "; ".join(f"{name} {np.mean(own):.1f}" for name, own, _ in rows if own)
    return _render(title, draw, f"{title}: {words}", (7.2, 0.9 + 0.34 * len(rows)))


def training_plots(log: Records) -> list[Plot]:
    """Every curve that the log has values for, in the order a reader asks for them."""
    keys = list(dict.fromkeys(key for record in log for key in record))
    parts = [key for key in keys if key.startswith("loss") and key != "loss"]
    wanted = [
        ("Loss", ["loss"], "loss", True),
        ("Parts of the loss, weighted (smoothed)", parts, "loss", False),
        ("Learning rate", ["learning_rate"], "learning rate", None),
        ("Size of the features", [k for k in keys if k.startswith("norm/")], "mean norm", False),
        ("Training accuracy", [k for k in keys if k.startswith("accuracy")], "share correct", False),
        ("Speed", ["images_per_second"], "images / s", True),
    ]
    plots = []
    for title, names, unit, raw in wanted:
        curves = {name: _curve(log, name) for name in names}
        curves = {name: curve for name, curve in curves.items() if len(curve[0])}
        if curves:
            plots.append(_curves_plot(title, curves, unit, raw))
    return plots


def _curve(log: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one key, finite values only."""
    pairs = [
        (record["step"], record[key])
        for record in log
        if isinstance(record.get(key), (int, float)) and np.isfinite(record[key])
    ]
    return np.array([step for step, _ in pairs]), np.array([value for _, value in pairs], float)


def _curves_plot(title: str, curves: dict, unit: str, raw: bool | None) -> Plot:
    """raw: True draws the values and their smoothed curve, False the smoothed curve, None the values."""

    def draw(axes: Axes) -> None:
        for (name, (steps, values)), colour in zip(curves.items(), COLOURS * 4):
            label = name.partition("/")[2] or name
            if raw:
                axes.plot(*_thin(steps, values), color=colour, alpha=0.35, linewidth=0.8)
            curve = values if raw is None else _smooth(values)
            axes.plot(*_thin(steps, curve), color=colour, label=label)
        axes.set(xlabel="step", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if title == "Training accuracy":
            axes.set_ylim(0, 1.02)
        elif raw is not None and title != "Loss":  # sizes and speeds are read against 0
            axes.set_ylim(bottom=0)
        if len(curves) > 1 or title.startswith(("Size", "Training")):
            axes.legend(loc="best", ncols=1 + (len(curves) > 6))

    words = ", ".join(
        f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, (_, values) in curves.items()
    )
    return _render(title, draw, f"{title}: {words}")


def _smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving average over about a thirtieth of the run, without a start-up bias."""
    keep = 1 - 1 / max(1.0, len(values) / 30)
    total, weight, smooth = 0.0, 0.0, np.empty_like(values)
    for i, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        smooth[i] = total / weight
    return smooth


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most _POINTS points, evenly, the last one among them."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, _POINTS).round().astype(int))
    return steps[chosen], values[chosen]


def _render(
    title: str, draw: Callable[[Axes], None], alt: str, size: tuple[float, float] = (5.2, 3.1)
) -> Plot:
    return Plot(title, _svg(draw, "light", size), _svg(draw, "dark", size), alt)


def _svg(draw: Callable[[Axes], None], theme: str, size: tuple[float, float]) -> str:
    text, grid = _TEXT[theme], _GRID[theme]
    style: dict[Any, Any] = {
        "font.size": 10,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "text.color": text,
        "axes.labelcolor": text,
        "xtick.color": text,
        "ytick.color": text,
        "axes.edgecolor": grid,
        "grid.color": grid,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "dsareid",
        "svg.fonttype": "path",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)  # never a window, whatever back end the user has set
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
