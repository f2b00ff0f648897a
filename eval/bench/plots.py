"""Small line plots side by side, as PNG: medians, with the quartiles as a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.eval.bench.timing import Spread
from mixlm_rerank.eval.report.svg import GRID

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Line", "Panel", "check_matplotlib", "draw", "draw_bars"]

# Okabe and Ito's, told apart by the colour-blind.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1d2530", "#8a6d1f")


CROWDED = 20  # an axis over a larger range names powers of ten only


@dataclass(frozen=True)
class Line:
    """``x`` rises; ``y`` has a spread for each."""

    name: str
    x: Sequence[float]
    y: Sequence[Spread]


@dataclass(frozen=True)
class Panel:
    """``level``: the vertical axis begins at zero, to show whether a line is; else it is logarithmic."""

    title: str
    across: str
    up: str
    lines: Sequence[Line]
    level: bool = False


def check_matplotlib() -> None:
    """Raises MissingDependency without it: better now than after the work."""
    with optional_import("the plots need matplotlib", "bench"):
        import matplotlib  # noqa: F401


def draw(panels: Sequence[Panel], path: Path) -> None:
    """The horizontal axis is logarithmic, the vertical one shared; a line keeps its colour in all panels.

    Raises InputError if the file cannot be written.
    """
    check_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    figure = Figure(figsize=(4.2 * len(panels) + 1.6, 3.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        axes.set(title=panel.title, xlabel=panel.across, xscale="log", yscale="linear" if panel.level else "log")
        for line in panel.lines:
            colour = COLOURS[names.index(line.name) % len(COLOURS)]
            axes.plot(line.x, [y.median for y in line.y], "o-", color=colour, markersize=4, label=line.name)
            axes.fill_between(line.x, [y.low for y in line.y], [y.high for y in line.y], color=colour, alpha=0.15)
        axes.set_xticks(sorted({x for line in panel.lines for x in line.x}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if panel.level:
            axes.set_ylim(bottom=0)
        low, high = axes.get_ylim()
        plain = FuncFormatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain if high < CROWDED * low else NullFormatter())
        axes.grid(axis="y", which="both", color=GRID, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(which="both", length=0, labelsize=8)
    figure.axes[0].set_ylabel(panels[0].up)
    if len(names) > 1:
        figure.axes[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def draw_bars(series: Mapping[str, Mapping[str, float]], across: str, path: Path) -> None:
    """Values by name, one bar for each series, on a logarithmic axis. Raises InputError if it cannot be written."""
    check_matplotlib()
    from matplotlib.figure import Figure

    names = list(next(iter(series.values())))
    figure = Figure(figsize=(7, 0.6 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(series)
    for number, (label, values) in enumerate(series.items()):
        places = [row + (number - (len(series) - 1) / 2) * height for row in range(len(names))]
        bars = axes.barh(places, [values[name] for name in names], height * 0.9, label=label, color=COLOURS[number])
        axes.bar_label(bars, [f"{values[name]:,.3g}" for name in names], padding=3, fontsize=8)
    axes.set(xscale="log", xlabel=across, yticks=range(len(names)))
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
