"""The main picture: quality against speed, one point per system, and the Pareto frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixlm_rerank import numbers
from mixlm_rerank.eval.report import svg
from mixlm_rerank.eval.standings import Standings
from mixlm_rerank.eval.tables import EMPTY, Cell, Column, Columns, field, filled
from mixlm_rerank.systems.protocol import Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Point", "frontier_picture", "pareto", "place_labels"]

POINT, LINE = 7.0, 15.0  # pixels: half of a point's size, height of a label
WIDTH, HEIGHT = 860, 470


@dataclass(frozen=True)
class Point:
    """A system's mean of the main measure and its documents a second."""

    name: str
    kind: Kind
    quality: float
    speed: float


def pareto(points: Sequence[Point]) -> list[Point]:
    """The Pareto frontier: points that no other equals or beats in both, from the fastest to the slowest.

    >>> best, fast = Point("best", "other", 0.5, 10), Point("fast", "other", 0.4, 99)
    >>> [point.name for point in pareto([Point("beaten", "other", 0.4, 9), best, fast])]
    ['fast', 'best']
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (-point.speed, -point.quality)):
        if not found or point.quality > found[-1].quality:
            found.append(point)
    return found


def frontier_picture(table: Standings) -> svg.Picture | None:
    """Quality against speed; None if fewer than two systems were timed on all collections."""
    points = [
        Point(row.name, row.kind, row.mean, row.documents_per_second)
        for row in table.rows
        if row.mean is not None and row.documents_per_second
    ]
    if len(points) < 2:
        return None
    front = pareto(points)
    levels = {row.name: row.mean for row in table.rows if row.kind == "first stage" and row.mean is not None}
    oracle = next((row.mean for row in table.rows if row.kind == "oracle"), None)
    where = "mean over collections" if len(table.collections) > 1 else table.collections[0]
    drawn = _draw(points, front, levels, f"{table.measure}, {svg.legible(where)}")
    caption = "Up is better, right is faster. The line joins what no other system beats in both; the rest is pale."
    caption += " A system far below stands at the foot, with its value."
    if levels:
        caption += " The first stage (dashed) has no reranking speed."
    if oracle is not None:
        caption += f" The oracle, the ceiling for these candidates, is at {numbers.measure(oracle)}."
    on_line = {point.name for point in front}
    columns: Columns = [
        field("mean", table.measure, ""),
        field("documents_per_second", "documents/s", "", numbers.speed),
        (Column("on the line"), lambda row: Cell("yes", 1.0) if row.name in on_line else EMPTY),
    ]
    data = filled("Quality against speed", columns, [(row.name, row.kind, row) for row in table.rows])
    return svg.Picture(drawn, "Quality against speed", caption, data) if data else None


def _draw(points: Sequence[Point], front: Sequence[Point], levels: Mapping[str, float], what: str) -> str:
    figure, axes = svg.new_axes(WIDTH, HEIGHT, left=48, right=30, top=30, bottom=46)
    svg.name_axes(axes, "documents/s, log scale", what)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: numbers.speed(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.grid(axis="x", color=svg.GRID, linewidth=1)
    qualities = [(point.name, point.quality) for point in points]
    speeds = np.log10([point.speed for point in points])
    room = max(0.25, np.ptp(speeds) * 0.1)
    axes.set_xlim(*10.0 ** np.array([speeds.min() - room, speeds.max() + room]))
    outliers = svg.fit_height(axes, {name: [value] for name, value in [*levels.items(), *qualities]}, room=0.14)
    foot = axes.get_ylim()[0]
    # from the left: the best quality, then the best quality of faster systems, down to the foot
    steps = [(axes.get_xlim()[0], front[-1].quality), *((p.speed, p.quality) for p in reversed(front))]
    axes.step(*zip(*steps, (front[0].speed, foot), strict=True), where="pre", color="#9fb8cc", linewidth=1.6, zorder=2)
    for name, value in levels.items():
        text = name if name == "first stage" else f"{name}, first stage"
        text += f": {outliers[name]}" if name in outliers else ""
        svg.draw_level(axes, "first stage", max(value, foot), text)
    labels = []
    for point in [*front, *(point for point in points if point not in front)]:
        height = max(point.quality, foot)
        tip = svg.tip(point.name, f": {numbers.measure(point.quality)}, {numbers.speed(point.speed)} documents/s")
        svg.draw_dot(axes, point.speed, height, point.kind, tip, pale=point not in front)
        text = svg.legible(point.name) + (f": {outliers[point.name]}" if point.name in outliers else "")
        labels.append((point.speed, height, text, point.kind == "MixLM"))
    place_labels(axes, labels)
    return svg.inline_svg(figure, "frontier", f"{what}, against documents per second")


def place_labels(axes: Axes, labels: Sequence[tuple[float, float, str, bool]]) -> list[tuple[float, float, float]]:
    """Write labels to the right of their points, or to the left if there is no room. A label that would overlap others
    moves up or down and gets a thin line to its point.

    A label is x, y, text, and whether it is bold; the axes must have their final limits. Returns left, right and middle
    height of each label, in pixels, from the lowest point to the highest.
    """
    to_data, edge = axes.transData.inverted().transform, axes.bbox.extents
    points = sorted(labels, key=lambda label: label[1])
    pixels = axes.transData.transform([(x, y) for x, y, *_ in points])
    taken = [(x - POINT, x + POINT, y) for x, y in pixels]
    for (*_, text, bold), (x, y) in zip(points, pixels, strict=True):
        written = axes.text(0, 0, text, fontsize=svg.TEXT, color=svg.INK, va="center_baseline", parse_math=False)
        written.set(weight="bold" if bold else "normal", bbox={"color": "white", "alpha": 0.7, "pad": 0.5})
        with svg.unwarned():
            width = written.get_window_extent().width
        left = x + POINT + 2 if x + POINT + 2 + width < edge[2] else x - POINT - 2 - width
        others = sorted(middle for start, end, middle in taken if start < left + width and left < end)
        above, below = _free(y, LINE, others), _free(y, -LINE, others[::-1])
        middle = above if above - y < y - below and above < edge[3] else below
        taken.append((left, left + width, middle))
        written.set(position=to_data((left, middle)))
        if middle != y:
            near = np.clip(x, left, left + width), middle - np.sign(middle - y) * LINE / 2
            axes.plot(*to_data([(x, y), near]).T, color=svg.MUTED, linewidth=0.7, zorder=2)
    return taken[len(points) :]


def _free(height: float, step: float, others: Sequence[float]) -> float:
    """``height`` or, if others are in the way, the next free height in the direction of ``step``."""
    for other in others:
        if abs(height - other) < abs(step):
            height = other + step
    return height
