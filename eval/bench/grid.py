"""MixLM against the cross-encoder of its backbone, by document length and number of candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench import contenders
from mixlm_rerank.eval.bench.contenders import Contender, CrossEncoder, Task
from mixlm_rerank.eval.bench.kit import Run, Spread, check_same, fastest, over, spread, work_done
from mixlm_rerank.eval.bench.machine import shares
from mixlm_rerank.eval.bench.show import Panel, draw, table
from mixlm_rerank.eval.bench.synthetic import Words, random_index
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fast.int8 import in_int8
from mixlm_rerank.onnx import OnnxMixLM, export
from mixlm_rerank.onnx.exporting import check_installed
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.scoring import ReferenceScorer, SharedPrefixScorer
from mixlm_rerank.types import Model

__all__ = ["exported", "grid"]

DEFAULTS, BEST, ONNX = "cross-encoder, defaults", "cross-encoder, best", "cross-encoder, ONNX int8"
DOCUMENTS = 10_000  # in the token index
CHECKED = 20  # candidates whose scores are compared with the reference's
TRIED = 64  # documents on which full-text settings are tried
MEASURED_BY = 100  # most candidates for cross-encoders of other shapes: their documents/s do not depend on it
WATCHED = 3  # MixLM runs that are profiled
TOLERANCE, ONNX_TOLERANCE = 1e-4, 1e-3  # log-odds, as SharedPrefixScorer promises; logits, before quantisation

EXPLAINED = (
    "Medians. Speed-up: over the cross-encoder at its best settings. FLOP ratio: operations of full text over the "
    "contender's own. Realised: speed-up over FLOP ratio. Of the machine: share of the rate of float32 matrix "
    "products, measured in this run (int8 may pass it). Outside the ranker: share of the time that is not in the "
    "ranker's forward pass; of it the query: the item encoder reads it, for the residual. Documents are synthetic; "
    "one that is longer than the cross-encoder's positions is cut, and counted as it is read."
)


def grid(
    model: MixLM,
    folder: Path,
    *,
    lengths: Sequence[int],
    candidates: Sequence[int],
    budgets: Sequence[int],
    rounds: int,
    seconds: float,
    quiet: bool,
) -> str:
    """Measure the combinations that ``folder`` lacks; write and return the page of all cells in it.

    Raises InputError for a ranker that is not a BERT or has none of the budgets, MissingDependency without ONNX
    Runtime, MixLMError if scores are not the same.
    """
    kind = type(model.ranker.backbone).__name__
    if kind != "BertModel":
        raise InputError(f"the grid compares MixLMs whose ranker is a BertModel with its cross-encoder, not a {kind}")
    check_installed("bench")
    within = [tokens for tokens in budgets if tokens <= model.config.tokens]
    if not within:
        raise InputError(f"none of the budgets {tuple(budgets)} is within this model's {model.config.tokens}")
    run = Run(folder, model, quiet, budgets=within, rounds=rounds, seconds=seconds)
    cells = sorted(product(set(candidates), set(lengths)))  # quick ones first
    todo = [(count, length) for count, length in cells if _name(count, length) not in run.kept]
    if todo:
        run.say(f"{len(todo)} cells; first cross-encoder and MixLM are exported, and scores compared")
        with TemporaryDirectory() as place:
            _measure(run, model, Path(place), todo, within, rounds)
    return _page(run, model.name)


def exported(model: MixLM, folder: Path) -> OnnxMixLM:
    """The model in ONNX Runtime, on as many threads as PyTorch uses; the export checks that scores are the same."""
    export(model, folder)
    return OnnxMixLM.from_pretrained(folder, threads=torch.get_num_threads())


def _name(candidates: int, length: int) -> str:
    return f"{length} tokens, {candidates} candidates, query of {contenders.QUERY}"


def _measure(
    run: Run, model: MixLM, place: Path, todo: Sequence[tuple[int, int]], budgets: Sequence[int], rounds: int
) -> None:
    words, documents = Words(model.ranker.tokenizer), max(DOCUMENTS, *(count for count, _ in todo))
    index = random_index(place / "tokens", new_manifest(model, "int8", "random tokens"), documents)
    own, draw = contenders.of_ranker(model, place / "own"), partial(contenders.tasks, words, documents)
    shapes = {name: contenders.of_shape(name, words.tokenizer, place / name) for name in contenders.SHAPES}
    others = [contenders.reader(name, shape) for name, shape in shapes.items()]
    kinds: dict[str, Model] = {"": model, ", int8": in_int8(model), ", ONNX": exported(model, place / "onnx")}
    named = {f"MixLM k={k}{kind}": (each, k) for kind, each in kinds.items() for k in budgets}
    mixlms = [contenders.mixlm(name, Reranker(each, index, tokens=k), model, k) for name, (each, k) in named.items()]

    def best(name: str, kinds: Sequence[str], length: int) -> Contender:
        """The contender in the settings that are fastest in a short measurement."""
        options = list(product(kinds, contenders.BATCHES))
        tried = [contenders.reader("", own, *option)(draw(length, TRIED, 1)) for option in options]
        chosen = run.cell(f"settings, {name}, {length} tokens", fastest, tried)
        return contenders.reader(name, own, *options[[each.name for each in tried].index(chosen)])

    run.rate()
    (largest,) = draw(todo[-1][1], todo[-1][0], 1)
    run.keep("sameness", _sameness(model, index, own, largest, budgets))
    for candidates, length in todo:
        in_torch = [kind for kind in own.scores if kind not in ("ONNX", "int8")]
        present = [contenders.reader(DEFAULTS, own), best(BEST, in_torch, length), best(ONNX, ["int8"], length)]
        present += [*(others if candidates <= MEASURED_BY else ()), *mixlms]
        drawn, name = draw(length, candidates, rounds), _name(candidates, length)
        entrants = [contender(drawn) for contender in present]
        found = run.timed(name, entrants)
        for row, entrant in zip(found, entrants, strict=True):
            inside, _ = named.get(entrant.name, (None, 0))
            row["shares"] = shares(inside, entrant.runs[:WATCHED]) if isinstance(inside, MixLM) else None
        size = {"candidates": candidates, "document": length, "full_text_flops": own.flops(drawn[0])}
        run.keep(name, {**size, "contenders": found})
    run.rate()


def _sameness(
    model: MixLM, index: TokenIndex, own: CrossEncoder, task: Task, budgets: Sequence[int]
) -> dict[str, float | dict[str, float]]:
    """Compare, at every budget, the fast scorer with the reference on some of its candidates, and int8 with the fast
    scorer (reported, not checked). For the cross-encoder: the largest difference in logits between the ONNX graph
    before quantisation and PyTorch, and Pearson's correlation of int8 and PyTorch.
    """
    fast, near, plain = SharedPrefixScorer(model), SharedPrefixScorer(in_int8(model)), ReferenceScorer(model)
    largest = off = 0.0
    for tokens in budgets:
        candidates = torch.from_numpy(index.fetch([docid for docid, _ in task.hits], tokens).tokens)
        rows = torch.linspace(0, len(candidates) - 1, min(CHECKED, len(candidates))).long()
        exact = fast.score(task.query, candidates)
        largest = max(largest, float((exact[rows] - plain.score(task.query, candidates[rows])).abs().max()))
        off = max(off, float((near.score(task.query, candidates) - exact).abs().max()))
    kinds = ("float32", "ONNX", "int8")
    torchs, onnx, int8 = (own.scores[kind](task.query, task.texts[:CHECKED], CHECKED) for kind in kinds)
    difference = check_same(float(abs(onnx - torchs).max()), ONNX_TOLERANCE, "the ONNX graph's and PyTorch's scores")
    return {
        "mixlm": check_same(largest, TOLERANCE, "MixLM's fast scores and the reference's"),
        "int8": off,
        "onnx": {"difference": difference, "correlation": float(np.corrcoef(int8, torchs)[0, 1])},
    }


def rows(cell: Mapping[str, Any], rate: float) -> list[dict[str, Any]]:
    """Table rows of a cell, one per contender; see EXPLAINED. ``rate``: of matrix products."""
    (best,) = (median(each["seconds"]) for each in cell["contenders"] if each["name"] == BEST)
    found = []
    for each in cell["contenders"]:
        seconds, flops, inside = each["seconds"], each["flops"], each["shares"]
        speedup, ratio = best / median(seconds), cell["full_text_flops"] / flops
        found.append(
            {
                **{name: each[name] for name in ("name", "settings", "tokens")},
                "documents_per_second": over(cell["candidates"], spread(seconds)),
                **work_done(seconds, flops, rate),
                "speedup": speedup,
                "flop_ratio": ratio,
                "realised": speedup / ratio,
                "outside": inside and inside["query"] + inside["rest"],
                "query": inside and inside["query"],
            }
        )
    return found


def _page(run: Run, model: str) -> str:
    """Write and return the page: tables and the plot of all kept cells."""
    rates, rate, same = run.rates, median(run.rates), run.kept["sameness"]
    kept = [values for values in run.kept.values() if isinstance(values, dict) and "contenders" in values]
    cells = [
        {"name": _name(values["candidates"], values["document"]), **values, "contenders": rows(values, rate)}
        for values in sorted(kept, key=lambda values: (values["document"], values["candidates"]))
    ]
    draw(
        run.folder / "speedup.png", *(_panel(cells, count) for count in sorted({cell["candidates"] for cell in cells}))
    )
    checked = (
        f"Checked before timing: MixLM's fast scores equal the reference's within {same['mixlm']:.1e} log-odds (in "
        f"int8 {same['int8']:.2f}); the cross-encoder's ONNX graph equals PyTorch within "
        f"{same['onnx']['difference']:.1e}, and its int8 scores correlate with them by "
        f"{same['onnx']['correlation']:.4f}. MixLM in ONNX was checked when it was exported (within 1e-4). "
        f"Matrix product, float32: {rate / 1e9:.0f} GFLOP/s "
        f"(median of {len(rates)}, {min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f})."
    )
    tables = [f"## {cell['name']}\n\n{table(cell['contenders'])}" for cell in cells]
    values = {"matrix_product_gflops": [each / 1e9 for each in rates], "sameness": same, "cells": cells}
    return run.page(f"Speed of {model}", model, values, [checked, EXPLAINED, *tables])


def _panel(cells: Sequence[Mapping[str, Any]], candidates: int) -> Panel:
    """Speed-up against document length: ONNX int8 and MixLM at each budget."""
    lines: dict[str, dict[float, Spread]] = {}
    for cell in cells:
        for row in cell["contenders"] if cell["candidates"] == candidates else ():
            if row["name"] == ONNX or (row["tokens"] and "," not in row["name"]):
                text = row["speedup"] * row["milliseconds"]["median"]  # quartiles come from the contender's own times
                lines.setdefault(row["name"], {})[cell["document"]] = over(text, row["milliseconds"])
    return Panel("document length (tokens)", "speed-up over full text", lines, title=f"{candidates:,} candidates")
