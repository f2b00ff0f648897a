"""Small plots side by side, as PNG: medians, with the quartiles as a band."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.eval.bench.timing import Spread
from mixlm_rerank.eval.report.svg import GRID

__all__ = ["Panel", "check_matplotlib", "draw"]

# Okabe and Ito's, told apart by the colour-blind.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1d2530", "#8a6d1f")
CROWDED = 20  # an axis over a larger range names powers of ten only


@dataclass(frozen=True)
class Panel:
    """Attributes:
    across, up: what the axes show.
    lines: points by the line's name; the horizontal position is a number, rising, or itself a name.
    level: the vertical axis begins at zero, to show whether a line is; else it is logarithmic.
    """

    across: str
    up: str
    lines: Mapping[str, Mapping[Any, Spread]]
    title: str = ""
    level: bool = False


def check_matplotlib() -> None:
    """Raises MissingDependency without it: better now than after the work."""
    with optional_import("the plots need matplotlib", "bench"):
        import matplotlib  # noqa: F401


def draw(path: Path, *panels: Panel) -> None:
    """A horizontal axis of numbers is logarithmic, the vertical one shared; a line keeps its colour in all panels.

    Raises InputError if the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    figure = Figure(figsize=(4.2 * len(panels) + 1.6, 3.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        axes.set(title=panel.title, xlabel=panel.across, yscale="linear" if panel.level else "log")
        places = list(dict.fromkeys(place for points in panel.lines.values() for place in points))
        named = isinstance(places[0], str)
        for name, points in panel.lines.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            x = [str(place).replace(", ", ",\n") if named else place for place in points]
            low, middle, high = ([point[part] for point in points.values()] for part in ("low", "median", "high"))
            axes.plot(x, middle, "o" if named else "o-", color=colour, markersize=4, label=name)
            if not named:
                axes.fill_between(x, low, high, color=colour, alpha=0.15)
        if not named:
            axes.set(xscale="log", xticks=sorted(places))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if panel.level:
            axes.set_ylim(bottom=0)
        least, most = axes.get_ylim()
        plain = FuncFormatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain if most < CROWDED * least else NullFormatter())
        axes.grid(axis="y", which="both", color=GRID, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(which="both", length=0, labelsize=8)
    figure.axes[0].set_ylabel(panels[0].up)
    if len(names) > 1:
        figure.axes[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
