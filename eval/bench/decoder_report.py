"""The decoder shape as results.json, a table like the paper's, and a plot beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.eval.bench.decoder import CELL
from mixlm_rerank.eval.bench.decoder_ways import FULL_CACHED, FULL_TEXT, MIXLM, MIXLM_ALONE, WAYS
from mixlm_rerank.eval.bench.output import between, markdown_rows, write_page, write_results
from mixlm_rerank.eval.bench.plots import draw_bars
from mixlm_rerank.eval.bench.product import kept_rates
from mixlm_rerank.eval.bench.timing import Spread, spread

__all__ = ["PAPER", "write_decoder"]

# Items a second on one H100, 0.6B parameters (MixLM, 2512.07846).
PAPER = {FULL_TEXT: 270.0, FULL_CACHED: 290.0, MIXLM_ALONE: 3_000.0, MIXLM: 22_000.0}
# Gains: what over what.
GAINS = {
    "prefix sharing, full text": (FULL_CACHED, FULL_TEXT),
    "prefix sharing, MixLM": (MIXLM, MIXLM_ALONE),
    "MixLM over full text, both shared": (MIXLM, FULL_CACHED),
    "MixLM over full text, neither shared": (MIXLM_ALONE, FULL_TEXT),
    "MixLM over plain full text": (MIXLM, FULL_TEXT),
}


def write_decoder(kept: Mapping[str, Any], folder: Path) -> str:
    """All that was measured (:func:`measure_decoder`); returns the tables."""
    cell, rates = kept[CELL], kept_rates(kept)
    found = {way["name"]: way for way in cell["ways"]}
    seconds = {name: spread(way["seconds"]) for name, way in found.items()}
    speeds = {name: cell["items"] / own.median for name, own in seconds.items()}
    gflops = {name: way["flops"] / seconds[name].median / 1e9 for name, way in found.items()}
    gains = {name: speeds[a] / speeds[b] for name, (a, b) in GAINS.items()}
    possible = {name: found[b]["flops"] / found[a]["flops"] for name, (a, b) in GAINS.items()}
    shape = {name: value for name, value in cell.items() if name != "ways"}
    values = {
        "shape": shape,
        "matrix_product_gflops": [rate / 1e9 for rate in rates],
        "sameness": kept["sameness"],
        "ways": [
            {
                "name": name,
                "settings": found[name]["settings"],
                "rounds": len(found[name]["seconds"]),
                "seconds": vars(seconds[name]),
                "items_per_second": speeds[name],
                "gflops": gflops[name],
                "of_machine": 1e9 * gflops[name] / median(rates),
                "paper_items_per_second": PAPER[name],
            }
            for name in WAYS
        ],
        "gains": [
            {"name": name, "gain": gains[name], "flop_ratio": possible[name], "paper": PAPER[a] / PAPER[b]}
            for name, (a, b) in GAINS.items()
        ],
    }
    write_results(folder, "random weights in the shape of Qwen3", values)
    relative = {name: speed / speeds[FULL_TEXT] for name, speed in speeds.items()}
    theirs = {name: speed / PAPER[FULL_TEXT] for name, speed in PAPER.items()}
    draw_bars({"here": relative, "paper": theirs}, "documents a second, full text = 1", folder / "decoder.png")
    return write_page(folder, "Decoder shape", [_about(kept), _speeds(values["ways"]), _gains(values["gains"])])


def _about(kept: Mapping[str, Any]) -> str:
    cell = kept[CELL]
    return (
        f"Random weights in the shape of Qwen3: {cell['layers']} layers, hidden size {cell['hidden']}. "
        f"{cell['items']} documents of {cell['document']} tokens, prompt and query of {cell['prefix']}, one embedding "
        f"token. Medians; from query and texts (or embedding tokens in memory) to log-odds. Checked before timing: the "
        f"ways give the same scores within {kept['sameness']:.1e} log-odds. The paper: one H100, 0.6B parameters."
    )


def _speeds(found: Any) -> str:
    rows = [
        [
            f"{way['name']} ({way['settings']})",
            numbers.speed(way["items_per_second"]),
            numbers.milliseconds(1e3 * way["seconds"]["median"]),
            between(Spread(*(1e3 * way["seconds"][name] for name in ("median", "low", "high")))),
            numbers.speed(way["gflops"]),
            numbers.percent(way["of_machine"]),
            numbers.count(way["rounds"]),
            numbers.speed(way["paper_items_per_second"]),
        ]
        for way in found
    ]
    columns = (
        "way",
        "items/s",
        "ms a query",
        "quartiles",
        "GFLOP/s",
        "of the machine",
        "rounds",
        "the paper's items/s",
    )
    return markdown_rows(columns, rows)


def _gains(found: Any) -> str:
    rows = [
        [gain["name"], numbers.ratio(gain["gain"]), numbers.ratio(gain["flop_ratio"]), numbers.ratio(gain["paper"])]
        for gain in found
    ]
    return markdown_rows(("gain", "here", "FLOP ratio", "the paper"), rows)
