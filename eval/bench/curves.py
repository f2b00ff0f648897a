"""The curves of growth: points that are measured in turn, each round with other queries and candidates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.memory import rerank_memory
from mixlm_rerank.eval.bench.stores import docid, index_bytes, manifest_for, random_docids, random_index
from mixlm_rerank.eval.bench.texts import Words
from mixlm_rerank.eval.bench.timing import Entrant, interleaved, turns_bar
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import Document

__all__ = ["Curves"]

MEMORY_CANDIDATES = 1000
LEAST_WRITING = 1e-4  # seconds a document, for an estimate where the smallest index was there already
Rerank = Callable[[str, Sequence[str]], object]  # a query and docids


class Curves:
    """Of a model at its largest budget, over synthetic indexes in ``indexes``.

    ``depth`` candidates and a query of ``query`` tokens where they are not what is varied.
    """

    def __init__(
        self, model: MixLM, indexes: Path, *, depth: int, query: int, rounds: int, seconds: float, progress: bool
    ) -> None:
        self._model, self._indexes, self._progress = model, indexes, progress
        self._depth, self._query_tokens, self._rounds, self._seconds = depth, query, rounds, seconds
        self._words, self._draw = Words(model.ranker.tokenizer), Random(0)
        self._made: dict[int, TokenIndex] = {}

    def estimate(self, corpora: Sequence[int], counts: Sequence[int], others: int) -> str:
        """What it will take, in words: the smallest index is made, and a query reranked with it, to know."""
        started = time.perf_counter()
        smallest = min(corpora)
        run = self._reranker(self._index(smallest))
        writing = max((time.perf_counter() - started) / smallest, LEAST_WRITING)
        run(self._query(), self._some(smallest, self._depth))  # warm-up
        started = time.perf_counter()
        run(self._query(), self._some(smallest, self._depth))
        one = (time.perf_counter() - started) / self._depth  # seconds a candidate
        points = [one * count for count in (*counts, *[self._depth] * (len(corpora) + others))]
        measuring = sum(2 * point + min(self._rounds * point, self._seconds) for point in points)
        missing = [size for size in corpora if not (self._place(size) / "data.mdb").exists()]
        room = sum(index_bytes(manifest_for(self._model), size) for size in missing)
        return (
            f"indexes of {', '.join(map(numbers.count, corpora))} documents, {numbers.size(room)} more on disk for a "
            f"while, about {numbers.duration(measuring + writing * sum(missing))}"
        )

    def candidates(self, counts: Sequence[int]) -> dict[str, Any]:
        """Against the number of candidates."""
        documents = max(counts)
        run = self._reranker(self._index(documents))
        return self._timed(counts, lambda count: partial(run, self._query(), self._some(documents, count)))

    def corpus(self, sizes: Sequence[int]) -> dict[str, Any]:
        """Against the number of documents in the index; candidates lie all over it."""
        indexes = {size: self._index(size) for size in sizes}
        runs = {size: self._reranker(index) for size, index in indexes.items()}
        found = self._timed(sizes, lambda size: partial(runs[size], self._query(), self._some(size, self._depth)))
        return {**found, "bytes": [index.info().bytes for index in indexes.values()]}

    def prefix(self, lengths: Sequence[int], documents: int) -> dict[str, Any]:
        """Against the tokens of prompt and query together, as many as this model reads."""
        around = len(self._model.ranker.prefixes([self._words.text(1, self._draw)])[0]) - 1
        longest = self._model.config.max_query_tokens
        possible = [length for length in lengths if around < length <= longest]
        if not possible:
            raise InputError(f"this model's prefix has {around + 1} to {longest} tokens: none of {list(lengths)}")
        run = self._reranker(self._index(documents))
        return self._timed(
            possible, lambda length: partial(run, self._query(length - around), self._some(documents, self._depth))
        )

    def document(self, lengths: Sequence[int]) -> dict[str, Any]:
        """Against document length: documents that were really encoded. The index holds as many tokens of each."""
        words = Words(self._model.item_encoder.tokenizer)
        docids = [docid(row) for row in range(self._depth)]
        with TemporaryDirectory() as place:
            indexes = {}
            for length in lengths:
                texts = words.texts(self._depth, length, self._draw)
                documents = [Document(name, text) for name, text in zip(docids, texts, strict=True)]
                indexes[length] = TokenIndex.build(documents, self._model, Path(place) / str(length), progress=False)
            runs = {length: self._reranker(index) for length, index in indexes.items()}
            found = self._timed(lengths, lambda length: partial(runs[length], self._query(), docids))
            sizes = [index.info().bytes for index in indexes.values()]
        return {**found, "bytes": sizes, "max_document_tokens": self._model.config.max_document_tokens}

    def memory(self, documents: int) -> dict[str, int | None]:
        """Of a process that reranks out of an index of so many documents."""
        count = min(MEMORY_CANDIDATES, documents)
        self._index(documents)
        return {"candidates": count, **rerank_memory(self._model, self._place(documents), count, self._query())}

    def _timed(self, points: Sequence[int], work: Callable[[int], Callable[[], object]]) -> dict[str, Any]:
        """``work`` draws what a point does in a round."""
        drawn = {point: [work(point) for _ in range(self._rounds)] for point in points}
        entrants = [Entrant(str(point), partial(_nth, runs), runs[-1]) for point, runs in drawn.items()]
        with turns_bar(len(points), self._rounds, enabled=self._progress) as told:
            taken = interleaved(entrants, rounds=self._rounds, seconds=self._seconds, told=told)
        return {"x": list(points), "seconds": list(taken.values())}

    def _index(self, documents: int) -> TokenIndex:
        """Made if it is not there, or made to its end."""
        if documents in self._made:
            return self._made[documents]
        with progress_bar(documents, "write an index", "documents", enabled=self._progress) as bar:
            self._made[documents] = random_index(self._place(documents), manifest_for(self._model), documents, bar=bar)
        return self._made[documents]

    def _place(self, documents: int) -> Path:
        return self._indexes / str(documents)

    def _reranker(self, index: TokenIndex) -> Rerank:
        reranker = Reranker(self._model, index)
        return lambda query, docids: reranker.rerank(query, [(name, 0.0) for name in docids])

    def _query(self, tokens: int | None = None) -> str:
        return self._words.text(tokens or self._query_tokens, self._draw)

    def _some(self, documents: int, count: int) -> list[str]:
        return random_docids(count, documents, self._draw)


def _nth(runs: Sequence[Callable[[], object]], number: int) -> object:
    return runs[number]()
