"""What the figures share: axes with titles and ticks, dots and levels in the look of their kind, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import TYPE_CHECKING, Literal

from mixlm_rerank import numbers
from mixlm_rerank.eval.report.cast import LOOKS, legible
from mixlm_rerank.eval.report.svg import MUTED, TEXT
from mixlm_rerank.eval.tables import Table, listed
from mixlm_rerank.systems.protocol import Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Picture", "draw_dot", "draw_level", "fit_height", "in_sight", "log_ticks", "name_axes", "write"]


@dataclass(frozen=True)
class Picture:
    """A figure. ``svg`` is markup of ours, safe to put in the page; ``data``: what it shows, for who cannot see it."""

    svg: str
    title: str
    caption: str
    data: Table


def name_axes(axes: Axes, across: str, up: str = "") -> None:
    """Titles where they are read first: above the vertical axis, at the right end of the horizontal one."""
    write(axes, up, (0, 1), (-axes.get_window_extent().x0, 12), vertical="axes fraction")
    write(axes, f"{across} →", (1, 0), (0, -35), vertical="axes fraction", align="right")


def log_ticks(axes: Axes, values: Sequence[int], base: int) -> None:
    """The horizontal axis: logarithmic, ticks where there is data, as far as they have room. ``values`` rise."""
    axes.set_xscale("log", base=base)
    breadth = log(values[-1] / values[0])
    margin = exp(max(0.05 * breadth, 0.1))
    axes.set_xlim(values[0] / margin, values[-1] * margin)
    shown: list[int] = []
    for value in reversed(values):
        if not shown or log(shown[-1] / value) >= breadth / 10:
            shown.append(value)
    axes.set_xticks(shown, [numbers.count(value) for value in shown])
    axes.set_xticks([], minor=True)


def in_sight(values: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Without outliers: systems so far below that the upper half of the others would lie flat.

    >>> list(in_sight({"a": [0.62], "b": [0.65], "c": [0.6], "broken": [0.05]}))
    ['a', 'b', 'c']
    """
    tops = [max(own) for own in values.values()]
    middle = median(tops)
    lowest = middle - 6 * max(max(tops) - middle, 0.02)
    return {name: own for name, own in values.items() if max(own) >= lowest}


def fit_height(axes: Axes, values: Mapping[str, Sequence[float]]) -> str:
    """Let outliers leave the picture at its foot; the sentence that names them, if there are any."""
    kept = in_sight(values)
    gone = [f"{name} ({numbers.measure(max(own))})" for name, own in values.items() if name not in kept]
    if not gone:
        return ""
    heights = [value for own in kept.values() for value in own]
    low, high = min(heights), max(heights)
    room = max(0.01, (high - low) * 0.05)
    axes.set_ylim(low - room, high + room)
    return f" Too low for the picture: {listed(gone)}."


def draw_dot(axes: Axes, x: float, y: float, kind: Kind, gid: str, *, pale: bool = False) -> None:
    """A system; ``gid`` names it for its tip."""
    look, alpha = LOOKS[kind], 0.45 if pale else 1.0
    style = {"color": look.colour, "markersize": 9.5, "markeredgecolor": "white", "zorder": 4, "alpha": alpha}
    axes.plot([x], [y], look.marker, gid=gid, **style)


def draw_level(axes: Axes, kind: Kind, value: float, name: str = "") -> None:
    """A dashed line for a system that the horizontal axis does not concern."""
    colour = LOOKS[kind].colour
    axes.axhline(value, color=colour, linewidth=1.4, linestyle=(0, (5, 4)), zorder=2.5)
    if name:
        write(axes, legible(name), (0, value), (4, 5), colour=colour)


def write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    shift: tuple[float, float],
    *,
    vertical: Literal["data", "axes fraction"] = "data",
    size: float = TEXT,
    colour: str = MUTED,
    align: Literal["left", "center", "right"] = "left",
) -> None:
    """Text ``shift`` pixels from ``at``: x as a share of the axes' width, y in the data's units or as a share too."""
    places = {"xycoords": ("axes fraction", vertical), "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(text, at, shift, fontsize=size, color=colour, ha=align, parse_math=False, **places)
