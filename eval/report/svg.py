"""Shared parts of figures: plain axes, dots and levels in the look of their kind, and output as inline SVG."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from io import StringIO
from statistics import median
from typing import TYPE_CHECKING, Any

from mixlm_rerank import numbers
from mixlm_rerank.errors import optional_import
from mixlm_rerank.eval.tables import Table
from mixlm_rerank.systems.protocol import Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GRID", "INK", "LOOKS", "MUTED", "TEXT", "Look", "Picture", "draw_dot", "draw_level"]
__all__ += ["fit_height", "inline_svg", "legible", "name_axes", "new_axes", "tip", "unwarned"]

INK, MUTED, GRID = "#1d2530", "#5b6470", "#e4e8ec"
TEXT = 11.5  # pixels


@dataclass(frozen=True)
class Look:
    """Colour (Okabe and Ito's colour-blind safe palette) and shape, as a matplotlib marker and as an SVG path.

    The path lies in a box from -6 to 6.
    """

    colour: str
    marker: str
    path: str


LOOKS: dict[Kind, Look] = {
    "first stage": Look("#6b7280", "s", "M-4-4H4V4H-4z"),
    "bi-encoder": Look("#009e73", "^", "M0-5 5 4H-5z"),
    "full text": Look("#d55e00", "D", "M0-5.5 5.5 0 0 5.5-5.5 0z"),
    "MixLM": Look("#0072b2", "o", "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z"),
    "combination": Look("#9c4f96", "p", "M0-5.3 5-1.6 3.1 4.3H-3.1L-5-1.6z"),
    "oracle": Look("#1d2530", "*", "M0-6 1.6-2 6-1.9 2.6.8 3.7 5 0 2.6-3.7 5-2.6.8-6-1.9-1.6-2z"),
    "other": Look("#8a6d1f", "v", "M0 5 5-4H-5z"),
}


def legible(name: str, limit: int = 36) -> str:
    """A name that fits into a picture: one line, no characters that XML lacks.

    >>> legible("two\\nlines"), legible("a name of many words", 10)
    ('two lines', 'a name of…')
    """
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(name.split()))
    return name if len(name) <= limit else f"{name[: limit - 1].rstrip()}…"


def tip(name: str, more: str = "") -> str:
    """The gid of an artist whose tooltip shows a system's name, and more (see :func:`inline_svg`)."""
    return f"tip:{legible(name)}{more}"


def new_axes(
    width: float, height: float, *, left: float = 40, right: float = 12, top: float = 26, bottom: float = 42
) -> tuple[Figure, Axes]:
    """A figure of ``width`` x ``height`` CSS pixels; one pair of axes inside the margins: base line, horizontal grid.

    It does not use pyplot, so there is no global state. Raises MissingDependency if matplotlib is not installed.
    """
    with optional_import("figures need matplotlib", "eval"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasAgg(figure)  # needed to measure text
    inside = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(inside)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.tick_params(which="both", length=0, labelsize=11, labelcolor=MUTED, pad=6)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color("#9aa5b1")
    axes.yaxis.set_major_formatter(lambda value, _: numbers.measure(value))
    return figure, axes


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """The figure of :func:`new_axes` as an ``<svg role="img">`` element; text stays text, tips become titles.

    ``name`` must be unique in the page, as ids are made from it; ``title`` is the text alternative.
    """
    import matplotlib

    stream = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings), unwarned():
        figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    _, drawn = stream.getvalue().split("</defs>", 1)  # without the style sheet, which would affect the whole page
    drawn = re.sub(r'<g id="[^"]*"/>|\s*\n', "", drawn)
    drawn = re.sub(r'<g id="tip:([^"]*)">', r"<g><title>\1</title>", drawn)
    drawn = re.sub(r'<g id="[^"]*">', "<g>", drawn)
    shorter = re.compile(r"-?\d+\.\d\d+")  # tenths of a pixel are enough
    drawn = re.sub(r"<[^>]+>", lambda tag: shorter.sub(lambda n: f"{round(float(n[0]), 1):g}", tag[0]), drawn)
    width, height = (f"{72 * inches:g}" for inches in figure.get_size_inches())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{escape(title, quote=False)}</title>{drawn}'
    )


# no warnings about characters that matplotlib's font lacks: the page's font shows them
unwarned = partial(warnings.catch_warnings, action="ignore", category=UserWarning)
WORDS: Any = {"fontsize": TEXT, "color": MUTED, "parse_math": False}


@dataclass(frozen=True)
class Picture:
    """A figure. ``svg``: our own markup, safe to put in the page; ``data``: its values, for screen readers."""

    svg: str
    title: str
    caption: str
    data: Table


def name_axes(axes: Axes, across: str, up: str = "") -> None:
    """Set axis titles where they are read first: above the vertical axis, at the right end of the horizontal one."""
    axes.set_title(up, loc="left", x=-axes.bbox.x0 / axes.bbox.width, pad=11, **WORDS)
    axes.set_xlabel(f"{across} →", loc="right", **WORDS)


def fit_height(axes: Axes, values: Mapping[str, Sequence[float]], room: float = 0.05) -> dict[str, str]:
    """Set limits of the vertical axis that hold the values of all systems except outliers; ``room`` above and below is
    a share of their range.

    Returns the outliers and their highest values: systems so far below that the upper half of the others would look
    flat.
    """
    tops = {name: max(own) for name, own in values.items()}
    middle, highest = median(tops.values()), max(tops.values())
    lowest = middle - 6 * max(highest - middle, 0.02)
    low = min(min(own) for name, own in values.items() if tops[name] >= lowest)
    margin = max(0.01, (highest - low) * room)
    axes.set_ylim(low - margin, highest + margin)
    return {name: numbers.measure(top) for name, top in tops.items() if top < lowest}


def draw_dot(axes: Axes, x: float, y: float, kind: Kind, gid: str, *, size: float = 9.5, pale: bool = False) -> None:
    """Draw a system's dot; ``gid``: from :func:`tip`."""
    (dot,) = axes.plot(x, y, LOOKS[kind].marker, color=LOOKS[kind].colour, markersize=size, gid=gid, zorder=4)
    dot.set(markeredgecolor="white", alpha=0.45 if pale else 1.0)


def draw_level(axes: Axes, kind: Kind, value: float, name: str = "") -> None:
    """Draw a dashed line for a system that does not depend on the horizontal axis."""
    colour = LOOKS[kind].colour
    axes.axhline(value, color=colour, linewidth=1.4, linestyle=(0, (5, 4)), zorder=2.5)
    text = axes.annotate(legible(name), (0, value), (4, 5), ("axes fraction", "data"), "offset points", **WORDS)
    text.set_color(colour)
