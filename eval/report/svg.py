"""Figures as inline SVG: quiet axes to draw on; and matplotlib's output made small, accessible, the same every time."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

from mixlm_rerank.errors import optional_import

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GRID", "INK", "MUTED", "TEXT", "any_glyph", "inline_svg", "new_axes"]

INK, MUTED, GRID = "#1d2530", "#5b6470", "#e4e8ec"
TEXT = 11.5  # pixels


def new_axes(
    width: float, height: float, *, left: float = 40, right: float = 12, top: float = 26, bottom: float = 42
) -> tuple[Figure, Axes]:
    """A figure of that many CSS pixels with one pair of axes inside those margins: base line, horizontal grid.

    Without pyplot: nothing is kept globally. Raises MissingDependency if matplotlib is not installed.
    """
    with optional_import("figures need matplotlib", "eval"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasAgg(figure)  # measures text
    inside = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(inside)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.tick_params(which="both", length=0, labelsize=11, labelcolor=MUTED, pad=6)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color("#9aa5b1")
    return figure, axes


def inline_svg(figure: Figure, name: str, title: str, tips: Mapping[str, str]) -> str:
    """The figure as an ``<svg role="img">`` element; its texts stay texts.

    Args:
        figure: of :func:`new_axes`, drawn.
        name: unique in the page, and so are the ids that are made from it.
        title: its text alternative.
        tips: gid of an artist -> what it says when pointed at.
    """
    import matplotlib

    stream = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings), any_glyph():
        figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    _, drawn = stream.getvalue().split("</defs>", 1)  # without the style sheet, which would reach the whole page
    tipped = {gid: f"<title>{escape(tip, quote=False)}</title>" for gid, tip in tips.items()}
    drawn = re.sub(r'<g id="[^"]*"/>|\s*\n', "", drawn)
    drawn = re.sub(r'<g id="([^"]*)">', lambda found: f"<g>{tipped.get(found[1], '')}", drawn)
    drawn = re.sub(r"<[^>]+>", lambda tag: re.sub(r"-?\d+\.\d\d+", _tenth, tag[0]), drawn)
    width, height = (f"{72 * inches:g}" for inches in figure.get_size_inches())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{escape(title, quote=False)}</title>{drawn}'
    )


@contextmanager
def any_glyph() -> Iterator[None]:
    """No warnings of characters that matplotlib's font lacks: the page's font shows them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _tenth(number: re.Match[str]) -> str:
    """Tenths of a pixel are enough."""
    return f"{float(number[0]):.1f}".removesuffix(".0")
