"""The pictures of one collection: the main measure against depth, against token budget, and by kind of query."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.eval.report import svg
from mixlm_rerank.eval.standings import Row, Standings
from mixlm_rerank.eval.tables import EMPTY, Cell, Column, Line, Table, number
from mixlm_rerank.systems.protocol import Kind

__all__ = ["budget_picture", "depth_picture", "slice_pictures"]

WIDTH, HEIGHT = 520, 300
LEFT, LANE = 150, 34  # of dot plots: room for labels, height of a line
PALE = "#cdd3da"


@dataclass(frozen=True)
class Curve:
    """x -> main measure, and its standard deviation over seeds, 0 for one."""

    name: str
    kind: Kind
    values: dict[int, float] = field(default_factory=dict)
    sd: dict[int, float] = field(default_factory=dict)
    pale: bool = False


def depth_picture(table: Standings, column: int, featured: Sequence[Row], name: str) -> svg.Picture | None:
    """How the main measure grows with the number of candidates reranked; the curves of ``featured`` in colour.

    None without a curve of two depths.
    """
    rows = [(row, curve) for row in table.rows if len(curve := _by_depth(row, column)) > 1]
    if not rows:
        return None
    curves = [Curve(row.name, row.kind, curve, pale=row not in featured) for row, curve in rows]
    caption = "How many of the first stage's candidates are worth reranking?"
    if any(curve.pale for curve in curves):
        caption += " Pale: the other systems."
    levels = [row for row in featured if row.kind == "first stage"]
    heights = {curve.name: list(curve.values.values()) for curve in curves}
    drawn, gone = _draw(table, column, name, "candidates reranked", 10, curves, levels, heights)
    depths = sorted({depth for curve in curves for depth in curve.values})
    data = _data(f"{table.measure} by depth", {depth: Column(numbers.count(depth)) for depth in depths}, rows)
    return svg.Picture(drawn, "Depth", caption + gone, data)


def budget_picture(table: Standings, column: int, featured: Sequence[Row], name: str) -> svg.Picture | None:
    """What more embedding tokens a document bring; ``featured`` systems without a budget as dashed levels.

    None with fewer than two budgets. "MixLM k=4" and "MixLM k=8" are steps of one curve.
    """
    ran = [row for row in table.rows if row.members[column]]
    budgets = [(tokens, row) for row in ran if (tokens := row.members[column][0].tokens) is not None]
    if len({tokens for tokens, _ in budgets}) < 2:
        return None
    curves: dict[str, Curve] = {}
    for tokens, row in sorted(budgets, key=lambda pair: pair[0]):
        values = [system.measures[table.measure] for system in row.members[column]]
        model = re.sub(rf"\s*\bk ?= ?{tokens}\b", "", row.name) or row.name
        curve = curves.setdefault(model, Curve(model, row.kind))
        curve.values[tokens], curve.sd[tokens] = fmean(values), stdev(values) if len(values) > 1 else 0.0
    levels = [row for row in featured if row in ran and row.kind != "combination" and not row.members[column][0].tokens]
    caption = "What do more embedding tokens a document bring?"
    if levels:
        caption += " Dashed: systems that have none."
    if any(sd for curve in curves.values() for sd in curve.sd.values()):
        caption += " Bars: one standard deviation over seeds."
    shown = [(row, Cell(numbers.count(tokens), tokens)) for tokens, row in budgets] + [(row, EMPTY) for row in levels]
    lines = [(row, tokens, number(row.value(column, table.measure))) for row, tokens in shown]
    heights = {row.name: [value.order or 0.0] for row, _, value in lines}
    drawn, gone = _draw(table, column, name, "embedding tokens a document", 2, list(curves.values()), levels, heights)
    columns = Column("tokens"), Column(table.measure)
    data = tuple(Line(row.name, row.kind, (tokens, value)) for row, tokens, value in lines)
    return svg.Picture(drawn, "Token budget", caption + gone, Table(f"{table.measure} by token budget", columns, data))


def slice_pictures(table: Standings, column: int, featured: Sequence[Row], name: str) -> list[svg.Picture]:
    """A dot plot for each way in which the queries of a collection were sliced: a row a slice, a dot a system."""
    found = [piece for row in table.rows for system in row.members[column] for piece in system.slices]
    pictures = []
    for place, of in enumerate(dict.fromkeys(piece.of for piece in found)):
        queries = {piece.label: f"{piece.queries:,} queries" for piece in found if piece.of == of}
        coloured = [(row, _by_slice(row, column, of)) for row in reversed(featured)]  # the first, MixLM, on top
        drawn = _dots(table, coloured, f"{name}-{place}", of, queries)
        rows = [(row, _by_slice(row, column, of)) for row in table.rows]
        columns = {label: Column(label, count) for label, count in queries.items()}
        caption = f"{table.measure} over the queries of each kind. The fewer the queries, the less a difference says."
        data = _data(f"{table.measure} by {of}", columns, [pair for pair in rows if pair[1]])
        pictures.append(svg.Picture(drawn, f"By {of}", caption, data))
    return pictures


def _draw(
    table: Standings,
    column: int,
    name: str,
    across: str,
    base: int,
    curves: Sequence[Curve],
    levels: Sequence[Row],
    heights: Mapping[str, Sequence[float]],
) -> tuple[str, str]:
    """Curves over a logarithmic axis, and dashed levels. Returns also the sentence that names what is too low."""
    figure, axes = svg.new_axes(WIDTH, HEIGHT)
    axes.yaxis.set_major_formatter(lambda value, _: numbers.measure(value))
    svg.name_axes(axes, across, table.measure)
    svg.log_ticks(axes, sorted({x for curve in curves for x in curve.values}), base)
    for place, curve in enumerate(curves):
        look = svg.LOOKS[curve.kind]
        x, y, sd = list(curve.values), list(curve.values.values()), list(curve.sd.values())
        if any(sd):
            axes.errorbar(x, y, sd, fmt="none", ecolor=look.colour, elinewidth=1.2, capsize=3)
        (line,) = axes.plot(x, y, color=look.colour, linewidth=1.8, zorder=3, gid=f"curve{place}")
        if curve.pale:
            line.set(color=PALE, linewidth=1.2, zorder=2)
        else:
            line.set(marker=look.marker, markersize=6.5, markeredgecolor="white")
    for row in levels:
        svg.draw_level(axes, row.kind, row.value(column, table.measure) or 0.0)
    gone = svg.fit_height(axes, heights)
    tips = {f"curve{place}": svg.legible(curve.name) for place, curve in enumerate(curves)}
    return svg.inline_svg(figure, name, f"{table.measure} against {across}", tips), gone


def _dots(
    table: Standings, rows: Sequence[tuple[Row, Mapping[str, float]]], name: str, of: str, queries: Mapping[str, str]
) -> str:
    """``queries``: label of each slice -> how many there are."""
    figure, axes = svg.new_axes(WIDTH, 72 + LANE * len(queries), left=LEFT, top=20, bottom=46)
    axes.grid(False)
    tips: dict[str, str] = {}
    for place, label in enumerate(queries):
        axes.axhline(place, color=svg.GRID, linewidth=1, zorder=1)
        for row, values in rows:
            if label in values:
                gid = f"dot{len(tips)}"
                tips[gid] = f"{svg.legible(row.name)}: {numbers.measure(values[label])}"
                svg.draw_dot(axes, values[label], place, row.kind, gid)
    axes.set_ylim(len(queries) - 0.4, -0.6)
    names = [f"{svg.legible(label, 24)}\n{count}" for label, count in queries.items()]
    axes.set_yticks(range(len(names)), names, ha="left", color=svg.INK, linespacing=1.3, parse_math=False)
    axes.tick_params(axis="y", pad=LEFT)
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter(lambda value, _: numbers.measure(value))
    svg.name_axes(axes, table.measure)
    return svg.inline_svg(figure, name, f"{table.measure} by {of}", tips)


def _data(caption: str, columns: Mapping[Any, Column], rows: Sequence[tuple[Row, Mapping[Any, float]]]) -> Table:
    lines = [Line(row.name, row.kind, tuple(number(values.get(key)) for key in columns)) for row, values in rows]
    return Table(caption, tuple(columns.values()), tuple(lines))


def _by_depth(row: Row, column: int) -> dict[int, float]:
    """Depth -> main measure, the mean of the row's seeds where each has that depth."""
    curves = [system.depth_curve for system in row.members[column]]
    depths = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return {depth: fmean(curve[depth] for curve in curves) for depth in depths}


def _by_slice(row: Row, column: int, of: str) -> dict[str, float]:
    """Label -> main measure, the mean over seeds."""
    pieces = [piece for system in row.members[column] for piece in system.slices if piece.of == of]
    labels = dict.fromkeys(piece.label for piece in pieces)
    return {label: fmean(piece.value for piece in pieces if piece.label == label) for label in labels}
