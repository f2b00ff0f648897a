"""The pictures of one collection: the main measure against depth, against token budget, and by kind of query."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from statistics import stdev
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.eval.report import svg
from mixlm_rerank.eval.standings import Row, Standings
from mixlm_rerank.eval.tables import Cell, Column, Table, field, filled, listed, number
from mixlm_rerank.systems.protocol import Kind

__all__ = ["budget_picture", "depth_picture", "slice_pictures"]

WIDTH, HEIGHT = 520, 300
LEFT, LANE = 150, 34  # of dot plots: room for labels, height of a line
PALE = "#cdd3da"

Plotted = tuple[str, Kind, Mapping[Any, float]]  # a system, and x -> main measure


def depth_picture(table: Standings, column: int, featured: Sequence[Row], name: str) -> svg.Picture | None:
    """How the main measure grows with the number of candidates reranked; the curves of ``featured`` in colour.

    None without a curve of two depths.
    """
    found = [(row.name, row.kind, there.depth_curve) for row in table.rows if (there := row.on[column])]
    curves: list[Plotted] = [curve for curve in found if len(curve[2]) > 1]
    depths = sorted({depth for _, _, values in curves for depth in values})
    data = _data(f"{table.measure} by depth", {depth: Column(numbers.count(depth)) for depth in depths}, curves)
    if data is None:
        return None
    pale = {system for system, *_ in curves} - {row.name for row in featured}
    caption = "How many of the first stage's candidates are worth reranking?" + " Pale: the other systems." * bool(pale)
    stages = [row for row in featured if row.kind == "first stage"]
    levels = {row.kind: row.value(column, table.measure) or 0.0 for row in stages}
    heights = {system: list(values.values()) for system, _, values in curves}
    heights |= {row.name: list(levels.values()) for row in stages}
    drawn, gone = _draw(table.measure, name, ("candidates reranked", 10), curves, levels, heights, pale=pale)
    return svg.Picture(drawn, "Depth", caption + gone, data)


def budget_picture(table: Standings, column: int, featured: Sequence[Row], name: str) -> svg.Picture | None:
    """What more embedding tokens a document bring; ``featured`` systems without a budget as dashed levels.

    None with fewer than two budgets. "MixLM k=4" and "MixLM k=8" are steps of one curve.
    """
    measure = table.measure
    budgets = [(row, there) for row in table.rows if (there := row.on[column]) and there.tokens is not None]
    curves: dict[str, Plotted] = {}
    spreads: dict[str, dict[int, float]] = {}
    for row, there in sorted(budgets, key=lambda pair: pair[1].tokens or 0):
        model = re.sub(rf"\s*\bk ?= ?{there.tokens}\b", "", row.name) or row.name
        curves.setdefault(model, (model, row.kind, {}))[2][there.tokens] = there.measures[measure]
        seeds = [system.measures[measure] for system in row.seeds[column]]
        spreads.setdefault(model, {})[there.tokens or 0] = stdev(seeds) if len(seeds) > 1 else 0.0
    levels = [
        (row, there) for row in featured if row.kind != "combination" and (there := row.on[column]) and not there.tokens
    ]
    shown = [(row.name, row.kind, there) for row, there in budgets + levels]
    columns = [
        field("tokens", "tokens", "", numbers.count),
        (Column(measure), lambda there: number(there.measures[measure])),
    ]
    data = filled(f"{measure} by token budget", columns, shown)
    if data is None or len({there.tokens for _, there in budgets}) < 2:
        return None
    caption = "What do more embedding tokens a document bring?" + " Dashed: systems that have none." * bool(levels)
    if any(sd for spread in spreads.values() for sd in spread.values()):
        caption += " Bars: one standard deviation over seeds."
    heights = {system: [there.measures[measure]] for system, _, there in shown}
    across = "embedding tokens a document", 2
    dashed = {row.kind: there.measures[measure] for row, there in levels}
    drawn, gone = _draw(measure, name, across, list(curves.values()), dashed, heights, spreads=spreads)
    return svg.Picture(drawn, "Token budget", caption + gone, data)


def slice_pictures(table: Standings, column: int, featured: Sequence[Row], name: str) -> list[svg.Picture]:
    """A dot plot for each way in which the queries of a collection were sliced: a row a slice, a dot a system."""
    sliced = {row.name: (row.kind, there.slices) for row in table.rows if (there := row.on[column])}
    pieces = [piece for _, own in sliced.values() for piece in own]
    pictures = []
    for place, of in enumerate(dict.fromkeys(piece.of for piece in pieces)):
        queries = {piece.label: f"{piece.queries:,} queries" for piece in pieces if piece.of == of}
        rows: dict[str, Plotted] = {
            system: (system, kind, {piece.label: piece.value for piece in own if piece.of == of})
            for system, (kind, own) in sliced.items()
        }
        # the last ones lie on top: MixLM
        drawn = _dots(table.measure, [rows[row.name] for row in reversed(featured)], f"{name}-{place}", of, queries)
        columns = {label: Column(label, count) for label, count in queries.items()}
        data = _data(f"{table.measure} by {of}", columns, list(rows.values()))
        caption = f"{table.measure} over the queries of each kind. The fewer the queries, the less a difference says."
        pictures += [svg.Picture(drawn, f"By {of}", caption, data)] if data else []
    return pictures


def _draw(
    measure: str,
    name: str,
    axis: tuple[str, int],
    curves: Sequence[Plotted],
    levels: Mapping[Kind, float],
    heights: Mapping[str, Sequence[float]],
    pale: Collection[str] = (),
    spreads: Mapping[str, Mapping[int, float]] | None = None,
) -> tuple[str, str]:
    """Curves over a logarithmic axis (its title and base), dashed levels, bars of ``spreads``; and a sentence that
    names those of ``heights`` that are too low for the picture.
    """
    across, base = axis
    figure, axes = svg.new_axes(WIDTH, HEIGHT)
    svg.name_axes(axes, across, measure)
    svg.log_ticks(axes, sorted({x for _, _, values in curves for x in values}), base)
    for system, kind, values in curves:
        look, points = svg.LOOKS[kind], (list(values), list(values.values()))
        bars = list((spreads or {}).get(system, {}).values())
        if any(bars):
            axes.errorbar(*points, bars, fmt="none", ecolor=look.colour, elinewidth=1.2, capsize=3)
        (line,) = axes.plot(*points, color=look.colour, linewidth=1.8, zorder=3, gid=svg.tip(system))
        if system in pale:
            line.set(color=PALE, linewidth=1.2, zorder=2)
        else:
            line.set(marker=look.marker, markersize=6.5, markeredgecolor="white")
    for kind, value in levels.items():
        svg.draw_level(axes, kind, value)
    gone = [f"{system} ({value})" for system, value in svg.fit_height(axes, heights).items()]
    low, high = axes.get_ylim()
    longest = max((sd for bars in (spreads or {}).values() for sd in bars.values()), default=0.0)
    axes.set_ylim(low - longest, high + longest)
    told = f" Too low for the picture: {listed(gone)}." if gone else ""
    return svg.inline_svg(figure, name, f"{measure} against {across}"), told


def _dots(measure: str, rows: Sequence[Plotted], name: str, of: str, queries: Mapping[str, str]) -> str:
    """``queries``: label of each slice -> how many there are."""
    figure, axes = svg.new_axes(WIDTH, 72 + LANE * len(queries), left=LEFT, top=20, bottom=46)
    axes.grid(False)
    for place, label in enumerate(queries):
        axes.axhline(place, color=svg.GRID, linewidth=1, zorder=1)
        for system, kind, values in rows:
            if label in values:
                tip = svg.tip(system, f": {numbers.measure(values[label])}")
                svg.draw_dot(axes, values[label], place, kind, tip)
    axes.set_ylim(len(queries) - 0.4, -0.6)
    names = [f"{svg.legible(label, 24)}\n{count}" for label, count in queries.items()]
    axes.set_yticks(range(len(names)), names, ha="left", color=svg.INK, linespacing=1.3, parse_math=False)
    axes.tick_params(axis="y", pad=LEFT)
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter(lambda value, _: numbers.measure(value))
    svg.name_axes(axes, measure)
    return svg.inline_svg(figure, name, f"{measure} by {of}")


def _data(caption: str, columns: Mapping[Any, Column], rows: Sequence[Plotted]) -> Table | None:
    """A table of numbers by the keys of ``columns``."""

    def cell(key: object, values: Mapping[Any, float]) -> Cell:
        return number(values.get(key))

    return filled(caption, [(column, partial(cell, key)) for key, column in columns.items()], rows)
