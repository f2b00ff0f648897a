"""Output of results: Markdown tables, and small plots side by side as PNG (medians, with quartiles as a band)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlm_rerank.eval.bench.kit import Spread
from mixlm_rerank.eval.report.svg import GRID
from mixlm_rerank.eval.tables import markdown_escaped
from mixlm_rerank.numbers import count, percent, ratio, size, speed

__all__ = ["Panel", "draw", "table"]

# Formats of table columns by name. Other names of a row are not shown.
FORMATS: dict[Callable[[Any], str], str] = {
    str: "name settings",
    count: "candidates rounds runs",
    speed: "milliseconds items_per_second documents_per_second tokens_per_second paper_items_per_second "
    "bare_milliseconds offered answered gflops",
    ratio: "speedup flop_ratio gain paper over_full_text",
    percent: "of_machine of_matrix_rate outside query refused late failed",
    "{:.3f}".format: "realised over_bare over_payload p99_over_p50",
    size: "loaded private open_memory writing_memory disk",
    lambda seconds: f"{speed(1e3 * seconds)} ms": "open_seconds",
}
FORMAT = {name: write for write, names in FORMATS.items() for name in names.split()}

# Okabe and Ito's palette, safe for colour-blind readers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1d2530", "#8a6d1f")
CROWDED = 20  # an axis over a larger range labels powers of ten only


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table: a column for each name in ``FORMATS``, medians followed by their quartiles.

    >>> print(table([{"name": "x|y", "gain": {"low": 1.5, "median": 2.0, "high": 2.25}}, {"name": "z", "gain": None}]))
    | name | gain |
    | --- | ---: |
    | x\\|y | 2.0× (1.5× to 2.2×) |
    | z | – |
    """
    names = [name for name in rows[0] if name in FORMAT]
    lines = [[name.replace("_", " ") for name in names], ["---", *["---:"] * (len(names) - 1)]]
    lines += [[markdown_escaped(_written(name, row[name])) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _written(name: str, value: Any) -> str:
    if isinstance(value, dict):
        low, middle, high = (_written(name, value[part]) for part in ("low", "median", "high"))
        return f"{middle} ({low} to {high})"
    if isinstance(value, list):  # percentiles
        return " / ".join(_written(name, each) for each in value)
    return "–" if value is None else FORMAT[name](value)


@dataclass(frozen=True)
class Panel:
    """A plot."""

    across: str  # labels of the axes
    up: str
    lines: Mapping[str, Mapping[Any, Spread]]  # line's name -> x -> y; x are rising numbers, or names
    title: str = ""
    level: bool = False  # start the y axis at zero, to show whether a line is level; else it is logarithmic


def draw(path: Path, *panels: Panel) -> None:
    """Draw panels side by side. Numeric x axes are logarithmic, the y axis is shared, lines keep their colours."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

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
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if panel.level:
            axes.set_ylim(bottom=0)
        least, most = axes.get_ylim()
        plain = StrMethodFormatter("{x:,g}")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain if most < CROWDED * least else NullFormatter())
        axes.grid(axis="y", which="both", color=GRID, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(which="both", length=0, labelsize=8)
    figure.axes[0].set_ylabel(panels[0].up)
    if len(names) > 1:
        figure.axes[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)
