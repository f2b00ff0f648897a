"""The decoder shape of the paper: short query, long documents, one embedding token; with and without prefix sharing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.cells import Cells, conditions
from mixlm_rerank.eval.bench.decoder_model import DecoderShape, decoder_mixlm
from mixlm_rerank.eval.bench.decoder_ways import FULL_CACHED, FULL_TEXT, MIXLM, MIXLM_ALONE, WAYS, Way, ways
from mixlm_rerank.eval.bench.flops import shape_of, shared_prefix_flops, whole_flops
from mixlm_rerank.eval.bench.product import keep_rate
from mixlm_rerank.eval.bench.sameness import check_same
from mixlm_rerank.eval.bench.texts import Words
from mixlm_rerank.eval.bench.timing import Entrant, fastest, interleaved, planned_rounds, steady, turns_bar
from mixlm_rerank.model import MixLM

__all__ = ["CELL", "measure_decoder"]

CELL = "four ways"
TOLERANCE = 1e-3  # log-odds, of 900 positions summed in another order
TRIED = 4  # documents of full text that settings are tried on


def measure_decoder(
    folder: Path,
    shape: DecoderShape = DecoderShape(),
    *,
    rounds: int = 5,
    seconds: float = 90.0,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Seconds and operations of the four ways, kept in ``folder`` under :data:`CELL`, and what was found beside them.

    Raises MixLMError where the ways do not give the same scores.
    """
    kept = Cells(folder, conditions(None, **asdict(shape), rounds=rounds, seconds=seconds))
    try:
        if CELL not in kept.kept:
            torch.manual_seed(0)
            with TemporaryDirectory() as place:
                model = decoder_mixlm(shape, Path(place))
            queries, by_setting = _work(model, shape, rounds)
            rate = keep_rate(kept)
            flops = _flops(model, shape)
            runs = {way: flops[way] / (0.75 * rate) for way in WAYS}
            total = sum(run * planned_rounds(run, rounds, seconds) for run in runs.values())
            say(f"{folder}: four ways, about {numbers.duration(total)} (guessed from their operations)")
            kept.keep("sameness", _check_sameness(by_setting, queries[0]))
            chosen = {way: _settings(kept, way, by_setting[way], queries[0], shape.items) for way in WAYS}
            entrants = [_entrant(way, by_setting[way][chosen[way]], queries, shape.items) for way in WAYS]
            with turns_bar(len(entrants), rounds, enabled=progress) as told:
                taken = interleaved(entrants, rounds=rounds, seconds=seconds, told=told)
            found = [{"name": way, "settings": chosen[way], "flops": flops[way], "seconds": taken[way]} for way in WAYS]
            kept.keep(CELL, {**asdict(shape), "ways": found})
            keep_rate(kept)
        return kept.kept
    finally:
        kept.close()


def _work(model: MixLM, shape: DecoderShape, count: int) -> tuple[list[str], dict[str, dict[str, Way]]]:
    """Queries of the wished prefix length, and the ways, over documents of the wished length."""
    words, draw = Words(model.ranker.tokenizer), Random(0)
    around = len(model.ranker.prefixes([words.text(1, draw)])[0]) - 1
    if shape.prefix <= around:
        raise InputError(f"the prompt alone has {around} tokens: a prefix of {shape.prefix} leaves none for the query")
    tokens = torch.randn(shape.items, 1, shape.hidden)
    queries = words.texts(count, shape.prefix - around, draw)
    return queries, ways(model, words.texts(shape.items, shape.document, draw), tokens)


def _flops(model: MixLM, shape: DecoderShape) -> Mapping[str, float]:
    """Of a query with all its documents, by way. 1: the score token."""
    backbone, prefix, item = shape_of(model.ranker.backbone.config), shape.prefix, shape.document + 1
    return {
        FULL_TEXT: whole_flops(backbone, prefix + item, shape.items),
        FULL_CACHED: shared_prefix_flops(backbone, prefix, item, shape.items),
        MIXLM_ALONE: whole_flops(backbone, prefix + 2, shape.items),
        MIXLM: shared_prefix_flops(backbone, prefix, 2, shape.items),
    }


def _check_sameness(by_setting: Mapping[str, Mapping[str, Way]], query: str) -> float:
    """Largest difference in log-odds among the ways on text, and among those on embedding tokens."""
    largest = 0.0
    for together in ((FULL_TEXT, FULL_CACHED), (MIXLM_ALONE, MIXLM)):
        scores: list[Tensor] = [way(query, TRIED) for name in together for way in by_setting[name].values()]
        largest = max(largest, *(float((own - scores[0]).abs().max()) for own in scores[1:]))
    return check_same(largest, TOLERANCE, "scores of the same documents in two ways")


def _settings(kept: Cells, name: str, options: Mapping[str, Way], query: str, items: int) -> str:
    """The fastest settings of a way, by a short measurement."""
    cell = f"settings, {name}"
    if cell not in kept.kept:
        count = TRIED if name in (FULL_TEXT, FULL_CACHED) else items
        best, taken = fastest([steady(words, partial(way, query, count)) for words, way in options.items()])
        kept.keep(cell, {"best": best, "seconds": taken})
    return str(kept.kept[cell]["best"])


def _entrant(name: str, way: Way, queries: list[str], items: int) -> Entrant:
    warm = TRIED if name in (FULL_TEXT, FULL_CACHED) else items
    return Entrant(name, lambda number: way(queries[number], items), partial(way, queries[0], warm))
