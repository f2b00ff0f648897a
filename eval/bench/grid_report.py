"""The grid as results.json, tables and two plots: speed-up against document length, latency against candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.eval.bench.contenders import BEST, ONNX
from mixlm_rerank.eval.bench.output import between, markdown_rows, write_page, write_results
from mixlm_rerank.eval.bench.plan import Cell
from mixlm_rerank.eval.bench.plots import Line, Panel, draw
from mixlm_rerank.eval.bench.product import kept_rates
from mixlm_rerank.eval.bench.rows import Row, rows
from mixlm_rerank.eval.bench.timing import Spread

__all__ = ["write_grid"]

COLUMNS = (
    *("contender", "documents/s", "quartiles", "ms a query", "speed-up", "FLOP ratio", "realised"),
    *("GFLOP/s", "of the machine", "outside the ranker", "rounds"),
)
EXPLAINED = (
    "Medians. Speed-up: over the cross-encoder at its best settings. FLOP ratio: operations of full text over the "
    "contender's own. Realised: speed-up over FLOP ratio. Of the machine: share of the rate of float32 matrix "
    "products, measured in this run (int8 may pass it). Outside the ranker: share of the time that is not in the "
    "ranker's forward pass; in brackets, what of it is the item encoder reading the query. Documents are synthetic; "
    "one that is longer than the cross-encoder's positions is cut, and counted as it is read."
)
SETTINGS = "settings, "

Found = dict[Cell, list[Row]]


def write_grid(kept: Mapping[str, Any], folder: Path, model: str) -> str:
    """All that was measured, from cells by name (:func:`measure_grid`); returns the tables."""
    rates = kept_rates(kept)
    rate = median(rates)
    cells = {_cell(values): values for values in kept.values() if isinstance(values, dict) and "contenders" in values}
    found = {cell: rows(cells[cell], rate) for cell in sorted(cells, key=lambda cell: (cell.document, cell))}
    settings = {cell.removeprefix(SETTINGS): values for cell, values in kept.items() if cell.startswith(SETTINGS)}
    values = {
        "matrix_product_gflops": [each / 1e9 for each in rates],
        "sameness": kept["sameness"],
        "settings": settings,
        "cells": [
            {"name": cell.name, **asdict(cell), "contenders": [asdict(row) for row in found[cell]]} for cell in found
        ],
    }
    write_results(folder, model, values)
    _plot_speedup(found, folder / "speedup.png")
    _plot_latency(found, folder / "latency.png")
    same, int8, onnx = (kept["sameness"][what] for what in ("mixlm", "int8", "onnx"))
    checked = (
        f"Checked before timing: MixLM's fast scores equal the reference's within {same:.1e} log-odds (in int8 "
        f"{int8['difference']:.2f}, and orders random candidates like float32 to a Kendall tau of "
        f"{int8['kendall_tau']:.3f}); the cross-encoder's ONNX graph "
        f"equals PyTorch within {onnx['difference']:.1e}, and its int8 scores correlate with them by "
        f"{onnx['correlation']:.4f}. MixLM in ONNX was checked when it was exported (within 1e-4). "
        f"Matrix product, float32: {rate / 1e9:.0f} GFLOP/s "
        f"(median of {len(rates)}, {min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f})."
    )
    tables = [f"## {cell.name}\n\n{_table(found[cell])}" for cell in found]
    return write_page(folder, f"Speed of {model}", [checked, EXPLAINED, *tables])


def _cell(values: Mapping[str, Any]) -> Cell:
    return Cell(values["candidates"], values["document"], values["query"])


def _table(found: list[Row]) -> str:
    lines = [
        [
            f"{row.name} ({row.settings})" if row.settings else row.name,
            numbers.speed(row.documents_per_second.median),
            between(row.documents_per_second),
            numbers.milliseconds(row.milliseconds.median),
            numbers.ratio(row.speedup),
            numbers.ratio(row.flop_ratio),
            f"{row.realised:.2f}",
            numbers.speed(row.gflops),
            numbers.percent(row.of_machine),
            None if row.outside is None else f"{numbers.percent(row.outside)} ({numbers.percent(row.query or 0.0)})",
            numbers.count(row.rounds),
        ]
        for row in found
    ]
    return markdown_rows(COLUMNS, lines)


def _plot_speedup(found: Found, path: Path) -> None:
    """A panel for each number of candidates; ONNX int8 and MixLM at each budget."""
    main = _main(found)
    panels = []
    for candidates in sorted({cell.candidates for cell in main}):
        of = {cell.document: main[cell] for cell in main if cell.candidates == candidates}
        lines = [Line(name, sorted(of), [_speedup(row) for row in _of(of, name)]) for name in _names(of, ONNX)]
        panels.append(Panel(f"{candidates:,} candidates", "document length (tokens)", "speed-up over full text", lines))
    draw(panels, path)


def _plot_latency(found: Found, path: Path) -> None:
    """A panel for each document length; the cross-encoder at its best and in int8, MixLM at each budget."""
    main = _main(found)
    panels = []
    for document in sorted({cell.document for cell in main}):
        of = {cell.candidates: main[cell] for cell in main if cell.document == document}
        lines = [Line(name, sorted(of), [row.milliseconds for row in _of(of, name)]) for name in _names(of, BEST, ONNX)]
        panels.append(Panel(f"{document} tokens a document", "candidates", "milliseconds a query", lines))
    draw(panels, path)


def _main(found: Found) -> Found:
    """The cells of the query length that has most of them."""
    lengths = [cell.query for cell in found]
    return {cell: own for cell, own in found.items() if cell.query == max(lengths, key=lengths.count)}


def _names(cells: Mapping[int, list[Row]], *cross_encoders: str) -> list[str]:
    """Of MixLM at each budget, and of these."""
    (first, *_) = cells.values()
    return [row.name for row in first if row.kind == "MixLM" or row.name in cross_encoders]


def _of(cells: Mapping[int, list[Row]], name: str) -> list[Row]:
    return [row for _, own in sorted(cells.items()) for row in own if row.name == name]


def _speedup(row: Row) -> Spread:
    """With the quartiles of the contender's own times."""
    own = row.milliseconds
    return Spread(row.speedup, row.speedup * own.median / own.high, row.speedup * own.median / own.low)
