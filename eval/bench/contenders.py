"""Who takes part in the grid: MixLM end to end, and cross-encoders in several settings, on the same queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

import numpy as np

from mixlm_rerank.eval.bench.cross_encoders import BATCHES, DEFAULT_BATCH, CrossEncoder
from mixlm_rerank.eval.bench.machine import Operations
from mixlm_rerank.eval.bench.synthetic import Words, random_docids
from mixlm_rerank.eval.bench.timing import Entrant
from mixlm_rerank.model import MixLM
from mixlm_rerank.reranker import Reranker

__all__ = ["QUERY", "Contender", "Task", "mixlm", "reader", "readers", "tasks"]

QUERY = 16  # tokens
WARM = 16  # documents of a cross-encoder's warm-up


@dataclass(frozen=True)
class Task:
    """A query and its candidates: as a first stage gives them, and the texts that full-text contenders read."""

    query: str
    hits: list[tuple[str, float]]
    texts: Sequence[str]


def tasks(words: Words, index: int, length: int, candidates: int, count: int) -> list[Task]:
    """Of texts of so many tokens, and docids of an index of so many documents; no two queries are the same."""
    draw = Random(f"{length} tokens, {candidates} candidates")
    texts = words.texts(candidates, length, draw)
    return [
        Task(
            words.text(QUERY, draw),
            [(docid, 0.0) for docid in random_docids(candidates, index, draw)],
            draw.sample(texts, len(texts)),
        )
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Contender:
    """Attributes:
    run: from a task to a ranking.
    flops: operations of a task.
    tokens: the token budget; None for cross-encoders, which read full text.
    watched: the MixLM whose time inside is looked at; None where PyTorch cannot look.
    """

    name: str
    run: Callable[[Task], object]
    flops: Callable[[Task], float]
    settings: str = ""
    tokens: int | None = None
    watched: MixLM | None = None

    def entrant(self, drawn: Sequence[Task]) -> Entrant:
        last = drawn[-1]
        warm = last if self.tokens else replace(last, texts=last.texts[:WARM])
        return Entrant(self.name, [partial(self.run, task) for task in drawn], partial(self.run, warm))


def mixlm(name: str, reranker: Reranker, model: MixLM, tokens: int) -> Contender:
    """End to end, docids to a ranking. ``model``: what the reranker's was made of."""
    ranker, operations = model.ranker, Operations.of(model.ranker.backbone)
    below = replace(operations, layers=ranker.mix_layer)
    above = replace(operations, layers=ranker.layers - ranker.mix_layer)

    def flops(task: Task) -> float:
        prefix = len(ranker.prefixes([task.query])[0])
        shared, own = ranker.positions(prefix, tokens)
        return below.whole(prefix) + above.shared(shared, own, len(task.hits))

    watched = reranker.model if isinstance(reranker.model, MixLM) else None
    run = lambda task: reranker.rerank(task.query, task.hits)  # noqa: E731
    return Contender(name, run, flops, tokens=tokens, watched=watched)


def reader(name: str, encoder: CrossEncoder, kind: str = "float32", batch: int = DEFAULT_BATCH) -> Contender:
    """A cross-encoder in a number format and batch size: rows of the texts, best first."""
    return Contender(
        name,
        lambda task: np.argsort(-encoder.scores[kind](task.query, task.texts, batch), kind="stable"),
        lambda task: encoder.flops(task.query, task.texts),
        f"{kind}, batches of {batch}",
    )


def readers(name: str, encoder: CrossEncoder, kinds: Sequence[str]) -> dict[str, Contender]:
    """A cross-encoder in all settings, by the settings."""
    found = (reader(name, encoder, kind, batch) for kind in kinds for batch in BATCHES)
    return {each.settings: each for each in found}
