"""The depth curve: how the main measure grows with the number of candidates reranked."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mixlm_rerank import numbers
from mixlm_rerank.eval.report.cast import LOOKS, legible
from mixlm_rerank.eval.report.plot import PALE, draw_level, fit_height, log_ticks, small_axes
from mixlm_rerank.eval.report.svg import inline_svg
from mixlm_rerank.eval.report.view import Column, Line, Picture, Table, value_cell
from mixlm_rerank.eval.standings import Row, Standings

__all__ = ["depth_picture"]


def depth_picture(table: Standings, column: int, featured: Sequence[Row], name: str) -> Picture | None:
    """All depth curves of one collection, those of ``featured`` in colour. None without a curve of two depths."""
    curves = {row.name: _curve(row, column) for row in table.rows}
    drawn = [row for row in table.rows if len(curves[row.name]) > 1]
    if not drawn:
        return None
    depths = sorted({depth for row in drawn for depth in curves[row.name]})
    figure, axes = small_axes("candidates reranked", table.measure)
    log_ticks(axes, depths, 10)
    tips = {}
    for number, row in enumerate(drawn):
        curve, gid = curves[row.name], f"curve{number}"
        look = LOOKS[row.kind] if row in featured else None
        axes.plot(
            list(curve),
            list(curve.values()),
            color=look.colour if look else PALE,
            marker=look.marker if look else "",
            markersize=6.5,
            markeredgecolor="white",
            linewidth=1.8 if look else 1.2,
            zorder=3 if look else 2,
            gid=gid,
        )
        tips[gid] = legible(row.name)
    for row in featured:
        value = row.value(column, table.measure)
        if row.kind == "first stage" and value is not None:
            draw_level(axes, row.kind, value)
    caption = "How many of the first stage's candidates are worth reranking?"
    if any(row not in featured for row in drawn):
        caption += " Pale: the other systems."
    caption += fit_height(axes, {row.name: list(curves[row.name].values()) for row in drawn})
    svg = inline_svg(figure, name, f"{table.measure} against the number of candidates reranked", tips)
    lines = [
        Line(row.name, row.kind, tuple(value_cell(curves[row.name].get(depth), numbers.measure) for depth in depths))
        for row in drawn
    ]
    data = Table(f"{table.measure} by depth", tuple(Column(numbers.count(depth)) for depth in depths), tuple(lines))
    return Picture(svg, "Depth", caption, data)


def _curve(row: Row, column: int) -> dict[int, float]:
    """Depth -> main measure, the mean of the row's seeds where each has that depth."""
    curves = [system.depth_curve for system in row.members[column]]
    depths = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return {depth: fmean(curve[depth] for curve in curves) for depth in depths}
