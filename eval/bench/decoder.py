"""The paper's table: long documents, one embedding token, a random decoder; with and without prefix sharing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from mixlm_rerank import numbers
from mixlm_rerank.eval.bench.kit import Run, check_same, column, quartiles, table, work_done
from mixlm_rerank.eval.bench.operations import Operations
from mixlm_rerank.eval.bench.plots import Panel, draw
from mixlm_rerank.eval.bench.random_decoder import (
    FULL_CACHED,
    FULL_TEXT,
    MIXLM,
    MIXLM_ALONE,
    PAPER,
    DecoderShape,
    random_mixlm,
)
from mixlm_rerank.eval.bench.synthetic import Words
from mixlm_rerank.eval.bench.timing import Entrant, fastest, planned_rounds, spread
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.ranker import Prefix
from mixlm_rerank.scoring import SharedPrefixScorer

__all__ = ["decoder"]

CELL = "four ways"
TOLERANCE = 1e-3  # log-odds, of 900 positions summed in another order
TRIED = 4  # documents of full text that settings are tried on
EXPECTED_SHARE = 0.75  # of the rate of matrix products, for the estimate
# What over what.
GAINS = {"prefix sharing, MixLM": (MIXLM, MIXLM_ALONE), "MixLM over full text, both shared": (MIXLM, FULL_CACHED)}
COLUMNS = {
    "way": lambda way: f"{way['name']} ({way['settings']})",
    "items/s": column(numbers.speed, "items_per_second"),
    "ms a query": column(numbers.milliseconds, "milliseconds", "median"),
    "quartiles": column(quartiles, "milliseconds"),
    "GFLOP/s": column(numbers.speed, "gflops"),
    "of the machine": column(numbers.percent, "of_machine"),
    "rounds": column(numbers.count, "rounds"),
    "the paper's items/s": column(numbers.speed, "paper_items_per_second"),
}
GAIN_COLUMNS = {
    "gain": column(str, "name"),
    "here": column(numbers.ratio, "gain"),
    "FLOP ratio": column(numbers.ratio, "flop_ratio"),
    "the paper": column(numbers.ratio, "paper"),
}

Documents = Callable[[Prefix, int], Sequence[Tensor]]  # a prefix, and how many documents -> [length, d] each
Way = Callable[[str, int], Tensor]  # a query, and how many of the documents -> log-odds, float32 [n]


def decoder(
    folder: Path,
    *,
    layers: int = 4,
    hidden: int = 512,
    document: int = 900,
    items: int = 50,
    rounds: int = 5,
    seconds: float = 90.0,
    quiet: bool = True,
) -> str:
    """Measure the four ways, unless ``folder`` has them; write and return the page.

    Args:
        document, items: tokens of a document, and documents of a query.
        rounds, seconds: see :func:`interleaved`.

    Raises MixLMError where the ways do not give the same scores.
    """
    settings = {"layers": layers, "hidden": hidden, "document": document, "items": items}
    with Run(folder, None, quiet, **settings, rounds=rounds, seconds=seconds) as run:
        if CELL not in run.kept:
            shape = DecoderShape(layers, hidden, max(2, hidden // 64), max(1, hidden // 128), head=64)
            _measure(run, shape, document, items, rounds, seconds)
        return _page(run, settings)


def _measure(run: Run, shape: DecoderShape, document: int, items: int, rounds: int, seconds: float) -> None:
    model = random_mixlm(shape, 1, document)
    words, draw, prefix = Words(model.ranker.tokenizer), Random(0), shape.prefix
    queries = words.texts(rounds, prefix - words.prompt(model.ranker), draw)
    options = _ways(model, words.texts(items, document, draw), torch.randn(items, 1, shape.hidden))
    count, item = Operations.of(model.ranker.backbone), document + 1  # 1: the score token
    flops = {
        FULL_TEXT: count.whole(prefix + item, items),
        FULL_CACHED: count.shared(prefix, item, items),
        MIXLM_ALONE: count.whole(prefix + 2, items),
        MIXLM: count.shared(prefix, 2, items),
    }
    rate = run.rate()
    guessed = [own / (EXPECTED_SHARE * rate) for own in flops.values()]
    total = sum(each * planned_rounds(each, rounds, seconds) for each in guessed)
    run.say(f"four ways, about {numbers.duration(total)} (guessed from their operations)")
    run.keep("sameness", _check(model, options, queries[0]))
    tried = {way: min(TRIED, items) if way in (FULL_TEXT, FULL_CACHED) else items for way in flops}
    chosen = {way: run.cell(f"settings, {way}", partial(_best, options[way], queries[0], tried[way])) for way in flops}
    entrants = []
    for way, settings in chosen.items():
        work = options[way][settings]
        runs = [partial(work, query, items) for query in queries]
        entrants.append(Entrant(way, runs, partial(work, queries[0], tried[way])))
    taken = run.timed("decoder", entrants, rounds=rounds, seconds=seconds)
    run.keep(CELL, {way: {"settings": chosen[way], "flops": flops[way], "seconds": taken[way]} for way in flops})
    run.rate()


def _ways(model: MixLM, texts: Sequence[str], tokens: Tensor) -> dict[str, dict[str, Way]]:
    """Each way's settings to choose from. All documents have the same length; ``tokens``: float [n, 1, d] of them."""

    def text(prefix: Prefix, count: int) -> Sequence[Tensor]:
        return model.ranker.documents(texts[:count], [len(prefix)] * len(texts[:count]))

    def embedded(prefix: Prefix, count: int) -> Sequence[Tensor]:
        return list(model.project(tokens[:count]))

    def batches(way: Callable[..., Tensor], documents: Documents, sizes: Sequence[int]) -> dict[str, Way]:
        return {f"batches of {size}": partial(way, model, documents, size) for size in sizes}

    return {
        FULL_TEXT: batches(_each, text, (1, 2, 4)),
        FULL_CACHED: batches(_cached, text, (1, 2, 4)),
        MIXLM_ALONE: batches(_each, embedded, (10, 25, 50)),
        MIXLM: {"all at once": lambda query, count: SharedPrefixScorer(model).score(query, tokens[:count])},
    }


@torch.inference_mode()
def _each(model: MixLM, documents: Documents, batch: int, query: str, count: int) -> Tensor:
    """Every document behind a prefix of its own, in batches.

    Sequences of one length need no mask: the kernel then leaves out what lies above the diagonal.
    """
    (prefix,) = model.ranker.prefixes([query])
    whole, found = documents(prefix, count), []
    for row in range(0, len(whole), batch):
        sequences = torch.stack([torch.cat([prefix.states, own, prefix.tail]) for own in whole[row : row + batch]])
        states = model.ranker.backbone(inputs_embeds=sequences, use_cache=False).last_hidden_state
        found.append(model.readout(states[:, -1]))
    return torch.cat(found)


@torch.inference_mode()
def _cached(model: MixLM, documents: Documents, batch: int, query: str, count: int) -> Tensor:
    """The prefix's keys and values once, then the documents in batches, each behind a view of them."""
    backbone = model.ranker.backbone
    (prefix,) = model.ranker.prefixes([query])
    once = DynamicCache()
    backbone(inputs_embeds=prefix.states[None], past_key_values=once, use_cache=True)
    whole, found = documents(prefix, count), []
    for row in range(0, len(whole), batch):
        own = torch.stack([torch.cat([document, prefix.tail]) for document in whole[row : row + batch]])
        cache = DynamicCache()
        for number, layer in enumerate(cast(Any, once.layers)):
            shape = (len(own), -1, -1, -1)
            cache.update(layer.keys.expand(shape), layer.values.expand(shape), number)
        states = backbone(inputs_embeds=own, past_key_values=cache, use_cache=True).last_hidden_state
        found.append(model.readout(states[:, -1]))
    return torch.cat(found)


def _check(model: MixLM, options: Mapping[str, Mapping[str, Way]], query: str) -> float:
    """Largest difference in log-odds among the ways on text, and among those on embedding tokens."""
    largest = 0.0
    for together in ((FULL_TEXT, FULL_CACHED), (MIXLM_ALONE, MIXLM)):
        scores = torch.stack([way(query, TRIED) for name in together for way in options[name].values()])
        largest = max(largest, float((scores - scores[0]).abs().max()))
    return check_same(largest, TOLERANCE, "scores of the same documents in two ways")


def _best(options: Mapping[str, Way], query: str, count: int) -> str:
    return fastest([Entrant(settings, [partial(way, query, count)]) for settings, way in options.items()])


def _page(run: Run, shape: Mapping[str, int]) -> str:
    ways, rate = run.kept[CELL], median(run.rates)
    speeds = {name: shape["items"] / median(way["seconds"]) for name, way in ways.items()}
    found = [
        {
            "name": name,
            "settings": way["settings"],
            **work_done(way["seconds"], way["flops"], rate),
            "items_per_second": speeds[name],
            "paper_items_per_second": PAPER[name],
        }
        for name, way in ways.items()
    ]
    gains = [
        {
            "name": name,
            "gain": speeds[a] / speeds[b],
            "flop_ratio": ways[b]["flops"] / ways[a]["flops"],
            "paper": PAPER[a] / PAPER[b],
        }
        for name, (a, b) in GAINS.items()
    ]
    relative = {
        who: {way: spread([speed / own[FULL_TEXT]]) for way, speed in own.items()}
        for who, own in {"here": speeds, "paper": PAPER}.items()
    }
    draw(run.folder / "decoder.png", Panel("", "documents a second, full text = 1", relative))
    about = (
        f"Random weights in the shape of Qwen3: {shape['layers']} layers, hidden size {shape['hidden']}. "
        f"{shape['items']} documents of {shape['document']} tokens, prompt and query of {DecoderShape.prefix}, one "
        "embedding token. Medians; from query and texts (or embedding tokens in memory) to log-odds. Checked before "
        f"timing: the ways give the same scores within {run.kept['sameness']:.1e} log-odds. The paper: one H100, 0.6B "
        "parameters."
    )
    values = {
        "shape": {**shape, "prefix": DecoderShape.prefix},
        "matrix_product_gflops": [each / 1e9 for each in run.rates],
        "sameness": run.kept["sameness"],
        "ways": found,
        "gains": gains,
    }
    tables = [table(COLUMNS, found), table(GAIN_COLUMNS, gains)]
    return run.page("Decoder shape", "random weights in the shape of Qwen3", values, [about, *tables])
