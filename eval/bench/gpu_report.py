"""The paper's shape on a GPU as results.json and tables, beside the paper's own figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.eval.bench.decoder_report import PAPER
from mixlm_rerank.eval.bench.decoder_ways import FULL_CACHED, FULL_TEXT, MIXLM
from mixlm_rerank.eval.bench.gpu import OWN, SHARED, GpuOptions, full_text_name, mixlm_name
from mixlm_rerank.eval.bench.output import markdown_rows, write_page, write_results
from mixlm_rerank.eval.bench.product import kept_rates

__all__ = ["TRAINING", "write_gpu"]

TRAINING = "training"  # cell of measure_training, where there is one

LIMIT = 0.5  # seconds: the paper's bound of the 99th percentile


def write_gpu(kept: Mapping[str, Any], folder: Path, options: GpuOptions) -> str:
    """All that was measured (:func:`measure_gpu`); returns the tables."""
    rate = median(kept_rates(kept))
    names = [mixlm_name(*call) for call in options.calls()]
    texts = [full_text_name(document, prefix) for document in options.documents for prefix in (OWN, SHARED)]
    slowest = kept[full_text_name(max(options.documents), SHARED)]
    rows = {name: _row(name, kept[name], rate, slowest["items"] / slowest["each"]) for name in [*names, *texts]}
    values: dict[str, Any] = {"matrix_product_tflops": rate / 1e12, "rows": list(rows.values())}
    values |= {"sameness": kept["sameness"], "kernels": kept["kernels"]}
    if TRAINING in kept:
        values[TRAINING] = _trained(kept[TRAINING], rate)
    write_results(folder, "random weights in the shape of Qwen3-0.6B", values)
    parts = [
        _about(kept, options, rate),
        _table([rows[name] for name in names]),
        "Full text, as many documents at once as fit into a forward pass:",
        _table([rows[name] for name in texts]),
        f"The paper, on one H100 and within 500 ms at the 99th percentile: {numbers.count(int(PAPER[MIXLM]))} items a "
        f"second with one embedding token, full text of about 900 tokens {PAPER[FULL_CACHED]:.0f} (prefix once) and "
        f"{PAPER[FULL_TEXT]:.0f} (prefix for each).",
        *(_kernels(name, found) for name, found in kept["kernels"].items()),
        *([_training(values[TRAINING])] if TRAINING in values else []),
    ]
    return write_page(folder, "The paper's shape on a GPU", parts)


def _row(name: str, cell: Mapping[str, Any], rate: float, full_text: float) -> dict[str, Any]:
    """``full_text``: items a second of the longest, prefix once."""
    return {
        "name": name,
        "items_per_second": cell["items"] / cell["each"],
        "over_full_text": cell["items"] / cell["each"] / full_text,
        "milliseconds": [1e3 * cell["p50"], 1e3 * cell["p99"]],
        "runs": cell["runs"],
        "of_matrix_rate": cell["flops"] / cell["each"] / rate,
    }


def _about(kept: Mapping[str, Any], options: GpuOptions, rate: float) -> str:
    same, shape = kept["sameness"], options.shape
    return (
        f"Random weights in the shape of Qwen3-0.6B ({shape.layers} layers of {shape.hidden}), bfloat16; prompt and "
        f"query of {shape.prefix} tokens; from query text and embedding tokens (float32, on the CPU) to log-odds. "
        f"Medians; of calls at once, means. The chip multiplies bfloat16 matrices at {rate / 1e12:.0f} TFLOP/s. Before "
        f"timing, in float32: the reference's scores within {same['float32']:.1e} log-odds. bfloat16: within "
        f"{same['bfloat16']:.2g} of float32 (scores spread by {same['spread']:.2g}), Kendall's tau "
        f"{same['kendall_tau']:.4f}; compiled and not, they differ by "
        f"{same['compiled']:.1g}, in other company by {same['company']:.1g}."
    )


def _table(rows: list[dict[str, Any]]) -> str:
    columns = ["", "items/s", "over full text", "p50, ms", "p99, ms", "of the matrix rate", "runs"]
    cells = [
        [
            row["name"],
            numbers.speed(row["items_per_second"])
            + ("" if row["milliseconds"][1] <= 1e3 * LIMIT else " (p99 over 500 ms)"),
            numbers.ratio(row["over_full_text"]),
            *(numbers.milliseconds(value) for value in row["milliseconds"]),
            numbers.percent(row["of_matrix_rate"]),
            numbers.count(row["runs"]),
        ]
        for row in rows
    ]
    return markdown_rows(columns, cells)


def _kernels(name: str, found: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{kind} {numbers.milliseconds(taken)}" for kind, taken in found["kinds"].items() if taken)
    return f"{name}, milliseconds on the GPU: {kinds}; {numbers.milliseconds(found['clock'])} by the clock."


def _trained(cell: Mapping[str, Any], rate: float) -> dict[str, float]:
    tokens, flops = cell["tokens"] / cell["seconds"], cell["flops"] / cell["seconds"]
    return {**cell, "tokens_per_second": tokens, "of_matrix_rate": flops / rate}


def _training(found: Mapping[str, float]) -> str:
    return (
        "Stage III, item encoder and ranker both of this shape: "
        f"{numbers.count(round(found['tokens_per_second']))} tokens a second, "
        f"{numbers.percent(found['of_matrix_rate'])} of the matrix rate."
    )
