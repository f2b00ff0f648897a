"""Figures as inline SVG: quiet axes to draw on; and matplotlib's output made small, accessible, the same every time."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from mixlm_rerank.errors import optional_import

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GRID", "INK", "MUTED", "any_glyph", "inline_svg", "new_axes"]

INK, MUTED, GRID = "#1d2530", "#5b6470", "#e4e8ec"
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
COORDINATES = ("d", "height", "transform", "width", "x", "y")


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
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#9aa5b1")
    return figure, axes


def inline_svg(figure: Figure, name: str, title: str, tips: Mapping[str, str] | None = None) -> str:
    """The figure as an ``<svg role="img">`` element; its texts stay texts, in the font of the page.

    Args:
        figure: of :func:`new_axes`, drawn.
        name: unique in the page; ids in the SVG begin with it.
        title: its text alternative.
        tips: gid of an artist -> what it says when pointed at.
    """
    import matplotlib

    stream = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), any_glyph():
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(stream.getvalue())
    _name_ids(root, name, tips or {})
    _prune(root)
    view = root.attrib["viewBox"]
    width, height = view.split()[2:]
    root.attrib = {"viewBox": view, "width": width, "height": height, "role": "img", "aria-labelledby": f"{name}-title"}
    _insert_title(root, title, id=f"{name}-title")
    ElementTree.register_namespace("", SVG.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def any_glyph() -> Iterator[None]:
    """No warnings of characters that matplotlib's font lacks: the page's font shows them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _name_ids(root: Element, name: str, tips: Mapping[str, str]) -> None:
    """Keep only the ids that are referred to, under this figure's name; give artists their tips."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        found = element.attrib.pop("id", "")
        if found in used:
            element.set("id", f"{name}-{found}")
        if found in tips:
            _insert_title(element, tips[found])
        if HREF in element.attrib:
            element.set("href", element.attrib.pop(HREF).replace("#", f"#{name}-"))
        if "clip-path" in element.attrib:
            element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{name}-"))


def _prune(root: Element) -> None:
    """Drop what shows nothing, the style sheet that would reach the whole page, fonts; tenths of a pixel are enough."""
    for element in root.iter():
        for key in COORDINATES:
            if key in element.attrib:
                element.set(key, re.sub(r"-?\d+\.\d\d+", _tenth, element.attrib[key]))
        if element.attrib.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        if element.tag == f"{SVG}text":
            element.set("style", re.sub(r"font-family: [^;]*; ?", "", element.attrib["style"]))
        elif element.tag != f"{SVG}title":
            element.text = None
        element.tail = None
    for parent in reversed(list(root.iter())):
        for child in list(parent):
            empty = not len(child) and child.tag in (f"{SVG}g", f"{SVG}defs")
            if empty or child.tag in (f"{SVG}metadata", f"{SVG}style") or child.attrib.get("style") == "fill: none":
                parent.remove(child)


def _tenth(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _insert_title(element: Element, text: str, **attributes: str) -> None:
    title = Element(f"{SVG}title", attributes)
    title.text = text
    element.insert(0, title)
