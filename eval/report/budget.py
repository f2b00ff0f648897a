"""The budget curve: what more embedding tokens a document bring, between the bi-encoder and the full text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import TYPE_CHECKING

from mixlm_rerank import numbers
from mixlm_rerank.eval.report.cast import LOOKS, legible
from mixlm_rerank.eval.report.plot import draw_level, fit_height, log_ticks, small_axes
from mixlm_rerank.eval.report.svg import inline_svg
from mixlm_rerank.eval.report.view import EMPTY, Cell, Column, Line, Picture, Table, value_cell
from mixlm_rerank.eval.standings import Row, Standings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["budget_picture"]


@dataclass(frozen=True)
class Step:
    """A model at one budget; ``sd`` over its seeds, 0 for one."""

    row: Row
    tokens: int
    value: float
    sd: float

    @property
    def model(self) -> str:
        """The name without the budget: "MixLM k=4" and "MixLM k=8" are steps of one curve."""
        return re.sub(rf"\s*\bk ?= ?{self.tokens}\b", "", self.row.name) or self.row.name


def budget_picture(table: Standings, column: int, featured: Sequence[Row], name: str) -> Picture | None:
    """Main measure against token budget on one collection; ``featured`` systems without one as dashed levels.

    None with fewer than two budgets.
    """
    steps = [step for row in table.rows for step in _steps(row, column, table.measure)]
    budgets = sorted({step.tokens for step in steps})
    if len(budgets) < 2:
        return None
    figure, axes = small_axes("embedding tokens a document", table.measure)
    log_ticks(axes, budgets, 2)
    tips = {}
    for number, model in enumerate(dict.fromkeys(step.model for step in steps)):
        curve = sorted((step for step in steps if step.model == model), key=lambda step: step.tokens)
        tips[f"model{number}"] = legible(model)
        _draw(axes, curve, f"model{number}")
    without = [row for row in featured if row.kind != "combination" and not _steps(row, column, table.measure)]
    levels = [(row, value) for row in without if (value := row.value(column, table.measure)) is not None]
    for row, value in levels:
        draw_level(axes, row.kind, value)
    caption = "What do more embedding tokens a document bring?"
    if levels:
        caption += " Dashed: systems that have none."
    if any(step.sd for step in steps):
        caption += " Bars: one standard deviation over seeds."
    heights = {step.row.name: [step.value] for step in steps} | {row.name: [value] for row, value in levels}
    caption += fit_height(axes, heights)
    svg = inline_svg(figure, name, f"{table.measure} against embedding tokens a document", tips)
    return Picture(svg, "Token budget", caption, _data(table.measure, steps, levels))


def _steps(row: Row, column: int, measure: str) -> list[Step]:
    """One step, or none where the row has no budget or did not run."""
    systems = row.members[column]
    value = row.value(column, measure)
    if value is None or systems[0].tokens is None:
        return []
    sd = stdev(system.measures[measure] for system in systems) if len(systems) > 1 else 0.0
    return [Step(row, systems[0].tokens, value, sd)]


def _draw(axes: Axes, curve: Sequence[Step], gid: str) -> None:
    look = LOOKS[curve[0].row.kind]
    x, y, sd = ([step.tokens for step in curve], [step.value for step in curve], [step.sd for step in curve])
    if any(sd):
        axes.errorbar(x, y, sd, fmt="none", ecolor=look.colour, elinewidth=1.2, capsize=3)
    axes.plot(x, y, color=look.colour, marker=look.marker, markersize=7, markeredgecolor="white", gid=gid, zorder=4)


def _data(measure: str, steps: Sequence[Step], levels: Sequence[tuple[Row, float]]) -> Table:
    rows = [(step.row, Cell(numbers.count(step.tokens), step.tokens), step.value) for step in steps]
    rows += [(row, EMPTY, value) for row, value in levels]
    lines = tuple(Line(row.name, row.kind, (tokens, value_cell(value, numbers.measure))) for row, tokens, value in rows)
    return Table(f"{measure} by token budget", (Column("tokens"), Column(measure)), lines)
