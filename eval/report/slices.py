"""Where a system is strong: the main measure over the queries of one kind, by length of query or document."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mixlm_rerank import numbers
from mixlm_rerank.eval.report.cast import legible
from mixlm_rerank.eval.report.plot import draw_dot, name_axes, write
from mixlm_rerank.eval.report.svg import GRID, INK, inline_svg, new_axes
from mixlm_rerank.eval.report.view import Column, Line, Picture, Table, value_cell
from mixlm_rerank.eval.standings import Row, Standings

__all__ = ["slice_pictures"]

WIDTH, LEFT, ROW = 520, 150, 34


def slice_pictures(table: Standings, column: int, featured: Sequence[Row], name: str) -> list[Picture]:
    """A dot plot for each way in which the queries of a collection were sliced: a row a slice, a dot a system."""
    found = [piece for row in table.rows for system in row.members[column] for piece in system.slices]
    kinds = dict.fromkeys(piece.of for piece in found)
    pictures = []
    for number, of in enumerate(kinds):
        queries = {piece.label: piece.queries for piece in found if piece.of == of}
        pictures.append(_picture(table, column, featured, f"{name}-{number}", of, queries))
    return pictures


def _picture(
    table: Standings, column: int, featured: Sequence[Row], name: str, of: str, queries: dict[str, int]
) -> Picture:
    labels = list(queries)
    values = {row.name: _values(row, column, of) for row in table.rows}
    figure, axes = new_axes(WIDTH, 72 + ROW * len(labels), left=LEFT, top=20, bottom=46)
    axes.grid(False)
    for place in range(len(labels)):
        axes.axhline(place, color=GRID, linewidth=1, zorder=1)
    tips: dict[str, str] = {}
    for row in reversed(featured):  # the first, MixLM, on top
        for place, label in enumerate(labels):
            if label in values[row.name]:
                value = values[row.name][label]
                gid = f"dot{len(tips)}"
                tips[gid] = f"{legible(row.name)}: {numbers.measure(value)}"
                draw_dot(axes, value, place, row.kind, gid)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks([])
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter(lambda value, _: numbers.measure(value))
    for place, label in enumerate(labels):
        write(axes, legible(label, 24), (0, place), (-LEFT, 1), colour=INK)
        write(axes, f"{queries[label]:,} queries", (0, place), (-LEFT, -12), size=10)
    name_axes(axes, table.measure)
    svg = inline_svg(figure, name, f"{table.measure} by {of}", tips)
    lines = [
        Line(row.name, row.kind, tuple(value_cell(values[row.name].get(label), numbers.measure) for label in labels))
        for row in table.rows
        if values[row.name]
    ]
    columns = tuple(Column(label, f"{queries[label]:,} queries") for label in labels)
    caption = f"{table.measure} over the queries of each kind. The fewer the queries, the less a difference says."
    return Picture(svg, f"By {of}", caption, Table(f"{table.measure} by {of}", columns, tuple(lines)))


def _values(row: Row, column: int, of: str) -> dict[str, float]:
    """Label -> main measure, the mean over seeds."""
    pieces = [piece for system in row.members[column] for piece in system.slices if piece.of == of]
    labels = dict.fromkeys(piece.label for piece in pieces)
    return {label: fmean(piece.value for piece in pieces if piece.label == label) for label in labels}
