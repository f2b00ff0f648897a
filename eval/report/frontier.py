"""The picture that decides: quality against speed, one point a system, and the line that no system gets past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

from mixlm_rerank import numbers
from mixlm_rerank.eval.report.cast import legible
from mixlm_rerank.eval.report.labels import Label, place_labels
from mixlm_rerank.eval.report.plot import Picture, draw_dot, draw_level, in_sight, name_axes
from mixlm_rerank.eval.report.svg import GRID, inline_svg, new_axes
from mixlm_rerank.eval.standings import Standings
from mixlm_rerank.eval.tables import EMPTY, Cell, Column, Line, Table, number
from mixlm_rerank.systems.protocol import Kind

__all__ = ["Point", "frontier_picture", "pareto"]

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


def frontier_picture(table: Standings) -> Picture | None:
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
    svg = _draw(points, front, levels, f"{table.measure}, {legible(where)}")
    caption = "Up is better, right is faster. The line joins what no other system beats in both; the rest is pale."
    caption += " A system far below stands at the foot, with its value."
    if levels:
        caption += " The first stage (dashed) has no reranking speed."
    if oracle is not None:
        caption += f" The oracle, the ceiling for these candidates, is at {numbers.measure(oracle)}."
    return Picture(svg, "Quality against speed", caption, _data(table, front))


def _draw(points: Sequence[Point], front: Sequence[Point], levels: Mapping[str, float], what: str) -> str:
    figure, axes = new_axes(WIDTH, HEIGHT, left=48, right=30, top=30, bottom=46)
    axes.set_xscale("log")
    speeds = [log10(point.speed) for point in points]
    room = max(0.25, (max(speeds) - min(speeds)) * 0.1)
    axes.set_xlim(10 ** (min(speeds) - room), 10 ** (max(speeds) + room))
    kept = in_sight({**{name: [value] for name, value in levels.items()}, **{p.name: [p.quality] for p in points}})
    values = [value for (value,) in kept.values()]
    room = max(0.01, (max(values) - min(values)) * 0.14)
    foot = min(values) - room
    axes.set_ylim(foot, max(values) + room)
    axes.xaxis.set_major_formatter(lambda value, _: numbers.speed(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.yaxis.set_major_formatter(lambda value, _: numbers.measure(value))
    axes.grid(axis="x", color=GRID, linewidth=1)
    name_axes(axes, "documents/s, log scale", what)
    line = _stairs(front, axes.get_xlim()[0], axes.get_ylim()[0])
    axes.plot(*zip(*line, strict=True), color="#9fb8cc", linewidth=1.6, zorder=2)
    for name, value in levels.items():
        text = name if name == "first stage" else f"{name}, first stage"
        draw_level(axes, "first stage", max(value, foot), text if name in kept else f"{text}: {numbers.measure(value)}")
    tips, labels = {}, []
    for place, point in enumerate([*front, *(point for point in points if point not in front)]):
        height, quality = max(point.quality, foot), numbers.measure(point.quality)
        draw_dot(axes, point.speed, height, point.kind, f"point{place}", pale=point not in front)
        tips[f"point{place}"] = f"{legible(point.name)}: {quality}, {numbers.speed(point.speed)} documents/s"
        text = legible(point.name) + f": {quality}" * (point.name not in kept)
        labels.append(Label(point.speed, height, text, point.kind == "MixLM"))
    place_labels(axes, labels, line)
    return inline_svg(figure, "frontier", f"{what}, against documents per second", tips)


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
