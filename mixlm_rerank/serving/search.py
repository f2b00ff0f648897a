"""Behind the page: BM25 over an index whose texts are known, and the same hits reranked, side by side."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel

from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["FirstStage", "Found", "SearchResponse", "side_by_side"]

SHOWN = 10
SNIPPET = 300  # characters


class Found(BaseModel):
    """One line of a ranking. ``score``: None if the index lacks the document. ``was``: its rank in the first stage."""

    docid: str
    score: float | None
    text: str
    was: int


class SearchResponse(BaseModel):
    """Both rankings of the same hits, and how long each took."""

    hits: int
    first_stage: list[Found]
    reranked: list[Found]
    timings_ms: dict[str, float]


class FirstStage:
    """BM25 by Pyserini over a Lucene index that stores its documents. Java is used from one thread."""

    def __init__(self, folder: Path) -> None:
        from mixlm_rerank.integrations.pyserini import LuceneTexts, open_searcher

        self._searcher = open_searcher(folder)
        self._texts = LuceneTexts(self._searcher)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lucene")
        weakref.finalize(self, self._searcher.close).atexit = False  # Java would keep the index mapped

    async def search(self, query: str, hits: int) -> list[Candidate]:
        """The best ``hits``."""
        return await asyncio.wrap_future(self._thread.submit(self._search, query, hits))

    async def snippets(self, docids: Sequence[str]) -> dict[str, str]:
        """Beginnings of texts."""
        held = await asyncio.wrap_future(self._thread.submit(self._texts, docids)) if docids else {}
        return {docid: _snippet(text) for docid, text in held.items()}

    def _search(self, query: str, hits: int) -> list[Candidate]:
        return [Candidate(hit.docid, float(hit.score)) for hit in self._searcher.search(query, hits)]


async def side_by_side(
    candidates: Sequence[Candidate], docs: Sequence[ScoredDoc], first_stage: FirstStage, timings: dict[str, float]
) -> SearchResponse:
    """The best of both rankings, with their texts."""
    started = time.perf_counter()
    ranks = {hit.docid: rank for rank, hit in enumerate(candidates, 1)}
    shown = [hit.docid for hit in candidates[:SHOWN]] + [doc.docid for doc in docs[:SHOWN]]
    texts = await first_stage.snippets(list(dict.fromkeys(shown)))

    def line(docid: str, score: float | None) -> Found:
        return Found(docid=docid, score=score, text=texts.get(docid, ""), was=ranks[docid])

    before = [line(hit.docid, hit.score) for hit in candidates[:SHOWN]]
    after = [line(doc.docid, None if doc.missing else doc.score) for doc in docs[:SHOWN]]
    timings = {**timings, "texts": round(1e3 * (time.perf_counter() - started), 2)}
    return SearchResponse(hits=len(candidates), first_stage=before, reranked=after, timings_ms=timings)


def _snippet(text: str) -> str:
    if len(text) <= SNIPPET:
        return text
    return text[:SNIPPET].rsplit(" ", 1)[0] + " …"
