"""The pictures of one collection: the main measure against depth, against token budget, and by kind of query."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.eval.report import svg
from mixlm_rerank.eval.standings import Row, Standings
from mixlm_rerank.eval.tables import Cell, Column, Columns, Table, field, filled, number
from mixlm_rerank.systems.protocol import Kind

__all__ = ["budget_picture", "depth_picture", "slice_pictures"]

WIDTH, HEIGHT = 520, 300
PALE = "#cdd3da"

Plotted = tuple[str, Kind, dict[Any, float]]  # a system, and x -> main measure


def depth_picture(table: Standings, column: int, featured: Sequence[Row], name: str) -> svg.Picture | None:
    """The main measure by number of candidates reranked; the curves of ``featured`` are in colour.

    None if no curve has two depths.
    """
    found = [(row.name, row.kind, there.depth_curve) for row in table.rows if (there := row.on[column])]
    curves: list[Plotted] = [curve for curve in found if len(curve[2]) > 1]
    ticks = {depth: numbers.count(depth) for depth in sorted({depth for *_, values in curves for depth in values})}
    data = _data(f"{table.measure} by depth", [(x, Column(text)) for x, text in ticks.items()], curves)
    if data is None:
        return None
    pale = {system for system, *_ in curves} - {row.name for row in featured}
    stages = {row.name: row.value(column, table.measure) or 0.0 for row in featured if row.kind == "first stage"}
    levels: list[tuple[Kind, float]] = [("first stage", value) for value in stages.values()]
    heights = {system: list(values.values()) for system, _, values in curves}
    heights |= {system: [value] for system, value in stages.items()}
    caption = "How many of the first stage's candidates are worth reranking?" + " Pale: the other systems." * bool(pale)
    drawn, gone = _draw(table.measure, "candidates reranked", name, ticks, curves, levels, heights, pale=pale)
    return svg.Picture(drawn, "Depth", caption + gone, data)


def budget_picture(table: Standings, column: int, featured: Sequence[Row], name: str) -> svg.Picture | None:
    """The main measure by embedding tokens per document; ``featured`` systems without a budget are dashed levels.

    None with fewer than two budgets. "MixLM k=4" and "MixLM k=8" are points of one curve.
    """
    measure, ran = table.measure, [(row, there) for row in table.rows if (there := row.on[column])]
    budgets = sorted((there.tokens, row.name, row) for row, there in ran if there.tokens is not None)
    levels = [(row, there) for row, there in ran if row in featured and row.kind != "combination" and not there.tokens]
    shown = [(row.name, row.kind, there) for row, there in ran if there.tokens is not None or (row, there) in levels]
    columns: Columns = [
        field("tokens", "tokens", "", numbers.count),
        (Column(measure), lambda there: number(there.measures[measure])),
    ]
    data = filled(f"{measure} by token budget", columns, shown)
    ticks = {tokens: numbers.count(tokens) for tokens, *_ in budgets}
    if data is None or len(ticks) < 2:
        return None
    curves: dict[str, Plotted] = {}
    bars: dict[str, list[float]] = {}
    for tokens, system, row in budgets:
        model = re.sub(rf"\s*\bk ?= ?{tokens}\b", "", system) or system
        values = [one.measures[measure] for one in row.seeds[column]]
        curves.setdefault(model, (model, row.kind, {}))[2][tokens] = fmean(values)
        bars.setdefault(model, []).append(stdev(values) if len(values) > 1 else 0.0)
    caption = "What do more embedding tokens a document bring?" + " Dashed: systems that have none." * bool(levels)
    caption += " Bars: one standard deviation over seeds." * any(map(any, bars.values()))
    drawn, gone = _draw(
        measure,
        "embedding tokens a document",
        name,
        ticks,
        list(curves.values()),
        [(row.kind, there.measures[measure]) for row, there in levels],
        {system: [there.measures[measure]] for system, _, there in shown},
        bars=bars,
    )
    return svg.Picture(drawn, "Token budget", caption + gone, data)


def slice_pictures(table: Standings, column: int, featured: Sequence[Row], name: str) -> list[svg.Picture]:
    """One picture for each way of slicing the queries of a collection."""
    sliced = [(row, there.slices) for row in table.rows if (there := row.on[column])]
    pieces = [piece for _, own in sliced for piece in own]
    pictures = []
    for place, of in enumerate(dict.fromkeys(piece.of for piece in pieces)):
        queries = {piece.label: f"{piece.queries:,} queries" for piece in pieces if piece.of == of}
        rows: dict[str, Plotted] = {
            row.name: (row.name, row.kind, {piece.label: piece.value for piece in own if piece.of == of})
            for row, own in sliced
        }
        ticks = {label: f"{svg.legible(label, 24)}\n{count}" for label, count in queries.items()}
        curves = [rows[row.name] for row in reversed(featured) if row.name in rows]  # the last is drawn on top: MixLM
        heights = {system: list(values.values()) for system, _, values in curves if values}
        drawn, gone = _draw(table.measure, of, f"{name}-{place}", ticks, curves, [], heights)
        caption = f"{table.measure} over the queries of each kind. The fewer the queries, the less a difference says."
        columns = [(label, Column(label, count)) for label, count in queries.items()]
        data = _data(f"{table.measure} by {of}", columns, list(rows.values()))
        pictures += [svg.Picture(drawn, f"By {of}", caption + gone, data)] if data else []
    return pictures


def _draw(
    measure: str,
    across: str,
    name: str,
    ticks: Mapping[Any, str],
    curves: Sequence[Plotted],
    levels: Sequence[tuple[Kind, float]],
    heights: Mapping[str, Sequence[float]],
    pale: Collection[str] = (),
    bars: Mapping[str, Sequence[float]] | None = None,
) -> tuple[str, str]:
    """Draw curves over evenly spaced ``ticks``, with error ``bars``, and dashed levels. Returns the SVG, and a sentence
    that names the systems of ``heights`` that are too low for the picture.
    """
    figure, axes = svg.new_axes(WIDTH, HEIGHT, bottom=56 if any("\n" in text for text in ticks.values()) else 42)
    svg.name_axes(axes, across, measure)
    places = {x: place for place, x in enumerate(ticks)}
    axes.set_xticks(range(len(ticks)), list(ticks.values()), parse_math=False)
    axes.set_xlim(-0.4, len(ticks) - 0.6)
    for system, kind, values in curves:
        look, points = svg.LOOKS[kind], ([places[x] for x in values], list(values.values()))
        (line,) = axes.plot(*points, color=look.colour, linewidth=1.8, zorder=3, gid=svg.tip(system))
        if system in pale:
            line.set(color=PALE, linewidth=1.2, zorder=2)
        else:
            for x, y in zip(*points, strict=True):
                svg.draw_dot(axes, x, y, kind, svg.tip(system, f": {numbers.measure(y)}"), size=6.5)
        if bars and any(bars[system]):
            axes.errorbar(*points, bars[system], fmt="none", ecolor=look.colour, elinewidth=1.2, capsize=3)
    for kind, value in levels:
        svg.draw_level(axes, kind, value)
    gone = [f"{system} ({value})" for system, value in svg.fit_height(axes, heights).items()]
    longest = max((sd for own in (bars or {}).values() for sd in own), default=0.0)
    axes.set_ylim(axes.get_ylim()[0] - longest, axes.get_ylim()[1] + longest)
    told = f" Too low for the picture: {numbers.listed(gone)}." if gone else ""
    return svg.inline_svg(figure, name, f"{measure} against {across}"), told


def _data(caption: str, columns: Sequence[tuple[Any, Column]], rows: Sequence[Plotted]) -> Table | None:
    """The table behind a picture; ``columns``: pairs of x and column."""

    def cell(x: object, values: Mapping[Any, float]) -> Cell:
        return number(values.get(x))

    return filled(caption, [(column, partial(cell, x)) for x, column in columns], rows)
