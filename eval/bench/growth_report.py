"""Growth as results.json, tables and a plot for each curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mixlm_rerank import numbers
from mixlm_rerank.eval.bench.growth import CURVES
from mixlm_rerank.eval.bench.output import between, markdown_rows, write_page, write_results
from mixlm_rerank.eval.bench.plots import Line, Panel, draw
from mixlm_rerank.eval.bench.timing import Spread, spread

__all__ = ["straight_line", "write_growth"]

ACROSS = {
    "candidates": "candidates",
    "corpus": "documents in the index",
    "prefix": "tokens of prompt and query",
    "document": "tokens of a document",
}
MEMORY = "memory, "


def write_growth(kept: Mapping[str, Any], folder: Path, model: str, tokens: int) -> str:
    """All that was measured (:func:`measure_growth`), at a budget of ``tokens``; returns the tables."""
    curves = {name: kept[name] for name in CURVES}
    spreads = {name: [_milliseconds(each) for each in curve["seconds"]] for name, curve in curves.items()}
    line = straight_line(curves["candidates"]["x"], [each.median for each in spreads["candidates"]])
    memory = {cell.removeprefix(MEMORY): found for cell, found in kept.items() if cell.startswith(MEMORY)}
    values: dict[str, Any] = {
        "tokens": tokens,
        **{name: _values(curve, spreads[name]) for name, curve in curves.items()},
        "memory": memory,
    }
    values["candidates"]["line"] = line
    write_results(folder, model, values)
    parts = [f"Token budget {tokens}; medians of whole queries, from docids to a ranking."]
    for name, curve in curves.items():
        line_of = Line("MixLM", curve["x"], spreads[name])
        level = name != "candidates"
        draw([Panel("", ACROSS[name], "milliseconds a query", [line_of], level)], folder / f"{name}.png")
        parts.append(f"## {ACROSS[name]}\n\n{_table(name, curve, spreads[name])}\n\n{_said(name, curve, values[name])}")
    parts.append(f"## memory\n\n{_memory_table(memory)}")
    return write_page(folder, f"Growth of {model}", parts)


def straight_line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """The line through positive points whose relative distances, squared, are least.

    Returns:
        ``intercept``, ``slope``; ``departure``: the largest relative distance of a point from it.

    >>> {name: round(value, 3) for name, value in straight_line([1, 2, 4], [3.0, 5.0, 9.0]).items()}
    {'intercept': 1.0, 'slope': 2.0, 'departure': 0.0}
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    weighted = np.stack([1 / ys, xs / ys], axis=1)
    (intercept, slope), *_ = np.linalg.lstsq(weighted, np.ones(len(xs)), rcond=None)
    departure = np.abs((intercept + slope * xs) / ys - 1).max()
    return {"intercept": float(intercept), "slope": float(slope), "departure": float(departure)}


def _milliseconds(seconds: Sequence[float]) -> Spread:
    return spread([1e3 * each for each in seconds])


def _values(curve: Mapping[str, Any], found: Sequence[Spread]) -> dict[str, Any]:
    medians = [each.median for each in found]
    return {
        "points": [
            {"name": str(x), "x": x, "rounds": len(seconds), "milliseconds": asdict(own)}
            for x, seconds, own in zip(curve["x"], curve["seconds"], found, strict=True)
        ],
        "largest_over_smallest": max(medians) / min(medians),
        **{name: value for name, value in curve.items() if name not in ("x", "seconds")},
    }


def _table(name: str, curve: Mapping[str, Any], found: Sequence[Spread]) -> str:
    rows = [
        [
            numbers.count(x),
            numbers.milliseconds(own.median),
            between(own),
            *([numbers.size(curve["bytes"][row])] if "bytes" in curve else []),
            numbers.count(len(curve["seconds"][row])),
        ]
        for row, (x, own) in enumerate(zip(curve["x"], found, strict=True))
    ]
    size = ["index"] if "bytes" in curve else []
    return markdown_rows([ACROSS[name], "ms a query", "quartiles", *size, "rounds"], rows)


def _said(name: str, curve: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    if name == "candidates":
        line = values["line"]
        return (
            f"Line through the points: {line['intercept']:.1f} ms, and {1e3 * line['slope']:.1f} ms for each 1,000 "
            f"candidates; no point is further from it than {numbers.percent(line['departure'])}."
        )
    said = f"Slowest over fastest point: {values['largest_over_smallest']:.2f}."
    if name == "document":
        said += f" The item encoder reads at most {curve['max_document_tokens']} tokens of a document."
    return said


def _memory_table(memory: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            name,
            *(numbers.size(found[part]) for part in ("loaded", "peak", "growth")),
            None if found["private"] is None else numbers.size(found["private"]),
            numbers.count(found["candidates"]),
        ]
        for name, found in memory.items()
    ]
    columns = ("index", "model loaded", "peak while reranking", "growth", "of it private", "candidates")
    return markdown_rows(columns, rows)
