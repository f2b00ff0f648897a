"""The paper's table: long documents, one embedding token, a random decoder; with and without prefix sharing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mixlm_rerank.eval.bench.kit import Entrant, Run, check_same, spread, work_done
from mixlm_rerank.eval.bench.machine import Operations
from mixlm_rerank.eval.bench.show import Panel, draw, table
from mixlm_rerank.eval.bench.synthetic import DecoderShape, Words, full_text, random_mixlm, scores
from mixlm_rerank.scoring import FullTextScorer, ReferenceScorer, SharedPrefixScorer

__all__ = ["FULL_CACHED", "FULL_TEXT", "MIXLM", "PAPER", "decoder"]

FULL_TEXT, FULL_CACHED = "full text", "full text, prefix once"
MIXLM_ALONE, MIXLM = "MixLM, without prefix sharing", "MixLM"
# Items a second on one H100, 0.6B parameters, texts of about 900 tokens (MixLM, 2512.07846).
PAPER = {FULL_TEXT: 270.0, FULL_CACHED: 290.0, MIXLM_ALONE: 3_000.0, MIXLM: 22_000.0}
# Speed ratios: (numerator, denominator).
GAINS = {"prefix sharing, MixLM": (MIXLM, MIXLM_ALONE), "MixLM over full text, both shared": (MIXLM, FULL_CACHED)}
TOLERANCE = 1e-3  # log-odds; 900 positions are summed in a different order
FEW = 4  # documents in the check, in the warm-up and in a full-text pass (a larger pass is not faster)


def decoder(
    folder: Path, *, layers: int, hidden: int, document: int, items: int, rounds: int, seconds: float, quiet: bool
) -> str:
    """Measure the four ways, unless ``folder`` has them; write and return the page.

    ``document``: tokens per document; ``items``: documents per query. Raises MixLMError if the ways do not give the
    same scores.
    """
    settings = {"layers": layers, "hidden": hidden, "document": document, "items": items}
    run = Run(folder, None, quiet, **settings, rounds=rounds, seconds=seconds)
    shape = DecoderShape(layers, hidden, max(2, hidden // 64), max(1, hidden // 128), head=64)
    ways = run.cell("four ways", _measured, run, shape, document, items, rounds)
    rate, found = median(run.rates), []
    for way in ways:
        done, paper = work_done(way["seconds"], way["flops"], rate, items=items), PAPER[way["name"]]
        found.append({"name": way["name"], **done, "paper_items_per_second": paper})
    speeds, flops = {way["name"]: way["items_per_second"] for way in found}, {way["name"]: way["flops"] for way in ways}
    gains = [
        {"name": name, "gain": speeds[a] / speeds[b], "flop_ratio": flops[b] / flops[a], "paper": PAPER[a] / PAPER[b]}
        for name, (a, b) in GAINS.items()
    ]
    both = {"here": speeds, "paper": PAPER}
    relative = {who: {way: spread([own[way] / own[FULL_TEXT]]) for way in own} for who, own in both.items()}
    draw(run.folder / "decoder.png", Panel("", "documents a second, full text = 1", relative))
    same = run.kept["sameness"]
    about = (
        f"Random weights in the shape of Qwen3: {layers} layers, hidden size {hidden}. {items} documents of {document} "
        f"tokens, prompt and query of {shape.prefix}, one embedding token. Medians; from query and texts (or embedding "
        "tokens in memory) to log-odds. Checked before timing: all ways give the plain scorers' scores within "
        f"{same:.1e} log-odds. The paper: one H100, 0.6B parameters."
    )
    values = {"shape": {**settings, "prefix": shape.prefix}, "sameness": same, "ways": found, "gains": gains}
    values |= {"matrix_product_gflops": [each / 1e9 for each in run.rates]}
    parts = [about, table(found), table(gains)]
    return run.page("Decoder shape", "random weights in the shape of Qwen3", values, parts)


def _measured(run: Run, shape: DecoderShape, document: int, items: int, rounds: int) -> list[dict[str, Any]]:
    model = random_mixlm(shape, 1, document)
    words = Words(model.ranker.tokenizer)
    queries = words.texts(rounds, shape.prefix - words.prompt(model.ranker))
    texts, tokens = words.texts(items, document), torch.randn(items, 1, shape.hidden)
    count, item = Operations.of(model.ranker.backbone), document + 1  # 1: the score token
    flops = {
        FULL_TEXT: count.whole(shape.prefix + item, items),
        FULL_CACHED: count.shared(shape.prefix, item, items),
        MIXLM_ALONE: count.whole(shape.prefix + 2, items),
        MIXLM: count.shared(shape.prefix, 2, items),
    }
    run.rate()
    ways: dict[str, Callable[[str, int], Tensor]] = {  # query, number of documents -> log-odds
        FULL_TEXT: lambda query, n: full_text(model, query, texts[:n], shared=False, at_once=FEW),
        FULL_CACHED: lambda query, n: full_text(model, query, texts[:n], shared=True, at_once=n),
        MIXLM_ALONE: lambda query, n: scores(model, query, model.project(tokens[:n]), shared=False, at_once=n),
        MIXLM: lambda query, n: SharedPrefixScorer(model).score(query, tokens[:n]),
    }
    text = FullTextScorer(model).score(queries[0], texts[:FEW])
    embedded = ReferenceScorer(model).score(queries[0], tokens[:FEW])
    plain = {FULL_TEXT: text, FULL_CACHED: text, MIXLM_ALONE: embedded, MIXLM: embedded}
    largest = max(float((way(queries[0], FEW) - plain[name]).abs().max()) for name, way in ways.items())
    run.keep("sameness", check_same(largest, TOLERANCE, "scores of the same documents in two ways"))
    entrants = []
    for name, way in ways.items():
        runs, warm_up = [partial(way, query, items) for query in queries], partial(way, queries[0], FEW)
        entrants.append(Entrant(name, runs, warm_up, {"flops": flops[name]}))
    found = run.timed("four ways", entrants)
    run.rate()
    return found
