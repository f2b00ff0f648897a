"""The picture that decides: quality against speed, one point a system, and the line that no system gets past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank import numbers
from mixlm_rerank.eval.report import svg
from mixlm_rerank.eval.standings import Standings
from mixlm_rerank.eval.tables import EMPTY, Cell, Column, Line, Table, number
from mixlm_rerank.systems.protocol import Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Point", "frontier_picture", "overlap", "pareto", "place_labels"]

Floats = NDArray[np.float64]

POINT = 7.0  # half the room that a point takes, in pixels
LINE = 15.0  # of text
# Where a label may stand: direction of its anchor from the point, distance in pixels; the first is liked best.
PLACES = np.array(
    [
        (dx, dy, distance * (0.7 if dx and dy else 1))
        for distance in (9.0, 22.0, 40.0)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
    ]
)
WIDTH, HEIGHT = 860, 470


@dataclass(frozen=True)
class Point:
    """A system's mean of the main measure and its documents a second."""

    name: str
    kind: Kind
    quality: float
    speed: float


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other equals or passes in both, from the fastest to the slowest.

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
    """None where fewer than two systems were timed on all collections: there is nothing to compare."""
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
    return svg.Picture(drawn, "Quality against speed", caption, _data(table, front))


def _draw(points: Sequence[Point], front: Sequence[Point], levels: Mapping[str, float], what: str) -> str:
    figure, axes = svg.new_axes(WIDTH, HEIGHT, left=48, right=30, top=30, bottom=46)
    axes.set_xscale("log")
    speeds = [log10(point.speed) for point in points]
    room = max(0.25, (max(speeds) - min(speeds)) * 0.1)
    axes.set_xlim(10 ** (min(speeds) - room), 10 ** (max(speeds) + room))
    kept = svg.in_sight({**{name: [value] for name, value in levels.items()}, **{p.name: [p.quality] for p in points}})
    values = [value for (value,) in kept.values()]
    room = max(0.01, (max(values) - min(values)) * 0.14)
    foot = min(values) - room
    axes.set_ylim(foot, max(values) + room)
    axes.xaxis.set_major_formatter(lambda value, _: numbers.speed(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.yaxis.set_major_formatter(lambda value, _: numbers.measure(value))
    axes.grid(axis="x", color=svg.GRID, linewidth=1)
    svg.name_axes(axes, "documents/s, log scale", what)
    line = _stairs(front, axes.get_xlim()[0], axes.get_ylim()[0])
    axes.plot(*zip(*line, strict=True), color="#9fb8cc", linewidth=1.6, zorder=2)
    for name, value in levels.items():
        text = name if name == "first stage" else f"{name}, first stage"
        svg.draw_level(
            axes, "first stage", max(value, foot), text if name in kept else f"{text}: {numbers.measure(value)}"
        )
    tips, labels = {}, []
    for place, point in enumerate([*front, *(point for point in points if point not in front)]):
        height, quality = max(point.quality, foot), numbers.measure(point.quality)
        svg.draw_dot(axes, point.speed, height, point.kind, f"point{place}", pale=point not in front)
        tips[f"point{place}"] = f"{svg.legible(point.name)}: {quality}, {numbers.speed(point.speed)} documents/s"
        text = svg.legible(point.name) + f": {quality}" * (point.name not in kept)
        labels.append((point.speed, height, text, point.kind == "MixLM"))
    place_labels(axes, labels, line)
    return svg.inline_svg(figure, "frontier", f"{what}, against documents per second", tips)


def _stairs(front: Sequence[Point], left: float, bottom: float) -> list[tuple[float, float]]:
    """Corners of the line around what the systems of the front reach or pass, from the left to the bottom."""
    corners = [(left, front[-1].quality)]
    for point, below in zip(reversed(front), [*(p.quality for p in reversed(front[:-1])), bottom], strict=True):
        corners += [(point.speed, point.quality), (point.speed, below)]
    return corners


def _data(table: Standings, front: Sequence[Point]) -> Table:
    names = {point.name for point in front}
    lines = []
    for row in table.rows:
        on_line = Cell("yes", 1.0) if row.name in names else EMPTY
        cells = number(row.mean), number(row.documents_per_second, numbers.speed), on_line
        lines.append(Line(row.name, row.kind, cells))
    columns = Column(table.measure), Column("documents/s"), Column("on the line")
    return Table("Quality against speed", columns, tuple(line for line in lines if line.cells[0] is not EMPTY))


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[float, float, str, bool]],
    line: Sequence[tuple[float, float]] = (),
) -> Floats:
    """Write the labels next to their points; where a label had to move away, a thin line leads to its point.

    Args:
        axes: with its final limits.
        labels: x, y, text, and whether it is bold; the first ones get the better places.
        line: to keep off: corners between level and upright pieces. All in the data's units.

    Returns:
        [labels, 4] where the labels are: left, bottom, right, top, in pixels.
    """
    to_pixels = axes.transData.transform
    points = to_pixels([(x, y) for x, y, _, _ in labels])
    corners = to_pixels(line) if line else np.empty((0, 2))
    pieces = np.hstack([np.minimum(corners[:-1], corners[1:]) - 3, np.maximum(corners[:-1], corners[1:]) + 3])
    texts = [
        axes.text(0, 0, text, fontsize=svg.TEXT, weight="bold" if bold else "normal", color=svg.INK, parse_math=False)
        for _, _, text, bold in labels
    ]
    with svg.any_glyph():
        options = [_options(x, y, one.get_window_extent().width) for (x, y), one in zip(points, texts, strict=True)]
    dots = np.hstack([points - POINT, points + POINT])
    boxes = np.full((len(labels), 4), np.inf)  # nowhere yet
    for _ in range(3):  # each pass knows where the others ended up in the one before
        for row, own in enumerate(options):
            taken = np.vstack([np.delete(dots, row, axis=0), np.delete(boxes, row, axis=0), pieces])
            outside = (own[:, 2] - own[:, 0]) * LINE - overlap(own, np.array([axes.bbox.extents]))
            costs = overlap(own, taken) + 4 * outside + 6 * np.arange(len(own))
            boxes[row] = own[costs.argmin()]
    to_data = axes.transData.inverted().transform
    for text, (left, bottom, right, top), (x, y) in zip(texts, boxes, points, strict=True):
        near = np.clip((x, y), (left, bottom), (right, top))
        if np.abs(near - (x, y)).sum() > 2 * POINT:
            axes.plot(*to_data([(x, y), near]).T, color=svg.MUTED, linewidth=0.7, zorder=2)
        side, at = ("left", left) if left >= x else ("right", right) if right <= x else ("center", x)
        text.set(ha=side, position=to_data((at, bottom + 4)))
    return boxes


def overlap(boxes: Floats, others: Floats) -> Floats:
    """[boxes] the area that each has in common with the others, [others, 4]."""
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    areas: Floats = np.maximum(sides, 0).prod(axis=2).sum(axis=1)
    return areas


def _options(x: float, y: float, width: float) -> Floats:
    """[places, 4] boxes around a point."""
    dx, dy, reach = PLACES.T
    left = x + dx * reach + (dx - 1) * width / 2
    bottom = y + dy * reach + np.where(dx == 0, (dy - 1) * LINE / 2, -LINE / 2)
    return np.stack([left, bottom, left + width, bottom + LINE], axis=1)
