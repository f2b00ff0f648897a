"""The token index by itself, as results.json, a table and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.eval.bench.output import between, markdown_rows, write_page, write_results
from mixlm_rerank.eval.bench.plots import Line, Panel, draw
from mixlm_rerank.eval.bench.store import BARE, INDEX, StoreOptions
from mixlm_rerank.eval.bench.timing import Spread, spread

__all__ = ["write_store"]


def write_store(kept: Mapping[str, Any], folder: Path, options: StoreOptions) -> str:
    """All that was measured (:func:`measure_store`); returns the table."""
    cells = sorted(kept.values(), key=lambda cell: cell["documents"])
    spreads = {name: [_milliseconds(cell["seconds"][name]) for cell in cells] for name in (INDEX, BARE)}
    points = [
        {
            "name": str(cell["documents"]),
            **{name: value for name, value in cell.items() if name != "seconds"},
            "milliseconds": {name: asdict(found[row]) for name, found in spreads.items()},
            "over_bare": spreads[INDEX][row].median / spreads[BARE][row].median,
            "over_payload": cell["disk"] / cell["payload"],
            "documents_per_second": cell["documents"] / cell["writing_seconds"],
        }
        for row, cell in enumerate(cells)
    ]
    medians = [each.median for each in spreads[INDEX]]
    flat = max(medians) / min(medians)
    write_results(folder, "none", {"points": points, "fetch_largest_over_smallest": flat})
    x = [cell["documents"] for cell in cells]
    lines = [Line(name, x, found) for name, found in spreads.items()]
    draw(
        [Panel("", "documents in the index", f"milliseconds for {options.fetch:,} documents", lines, True)],
        folder / "fetch.png",
    )
    rows = [
        [
            numbers.count(cell["documents"]),
            numbers.milliseconds(spreads[INDEX][row].median),
            between(spreads[INDEX][row]),
            numbers.milliseconds(spreads[BARE][row].median),
            f"{points[row]['over_bare']:.2f}",
            numbers.milliseconds(1e3 * cell["open_seconds"]),
            numbers.size(cell["open_memory"]),
            None if cell["writing_memory"] is None else numbers.size(cell["writing_memory"]),
            numbers.count(round(cell["documents"] / cell["writing_seconds"])),
            numbers.size(cell["disk"]),
            f"{points[row]['over_payload']:.3f}",
        ]
        for row, cell in enumerate(cells)
    ]
    columns = ["documents", "ms a fetch", "quartiles", "bare map, ms", "ratio", "open, ms", "memory after open"]
    columns += ["memory while writing", "documents/s written", "on disk", "over payload"]
    said = (
        f"A fetch is of {options.fetch:,} random documents, {options.tokens} tokens of {options.dim} dimensions each, "
        "int8 to float32, out of the page cache. The bare map and its dict hold the same records, without updates or "
        f"crash safety. Slowest over fastest fetch: {flat:.2f}. Memory is private, beyond that before."
    )
    return write_page(folder, "The token index by itself", [said, markdown_rows(columns, rows)])


def _milliseconds(seconds: list[float]) -> Spread:
    return spread([1e3 * each for each in seconds])
