"""Pyserini: reranking of hits; a searcher that reranks; documents and texts read from a Lucene index.

docs/integrations/pyserini.md has an example that runs.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixlm_rerank.arguments import check_count, check_strings
from mixlm_rerank.data.corpus import document_text
from mixlm_rerank.errors import InputError
from mixlm_rerank.integrations.java import start_java
from mixlm_rerank.integrations.lucene import open_searcher
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import Document, ScoredDoc

__all__ = ["LuceneCorpus", "LuceneTexts", "RerankedHit", "RerankingSearcher", "named_topics", "open_searcher"]
__all__ += ["rerank_hits", "start_java"]


class RerankedHit:
    """A Pyserini hit with its new score and rank; everything else (``lucene_document`` ...) is the first stage's."""

    _hit: Any = None  # while it is being copied or unpickled

    def __init__(self, doc: ScoredDoc, hit: Any) -> None:
        self.docid = doc.docid
        self.score = doc.score
        self.rank = doc.rank
        self.first_stage_score = doc.first_stage_score
        self.missing = doc.missing
        self._hit = hit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hit, name)

    def __repr__(self) -> str:
        return f"RerankedHit(docid={self.docid!r}, score={self.score:.4f}, rank={self.rank})"


def rerank_hits(reranker: Reranker, query: str, hits: Sequence[Any], k: int | None = None) -> list[RerankedHit]:
    """Rerank hits of a LuceneSearcher or FaissSearcher. Returns the best ``k`` in their new order."""
    return _with_hits(reranker.rerank(query, hits, k), hits)


class RerankingSearcher:
    """A searcher that fetches ``depth`` hits from another one and reranks them.

    It has ``search``, ``batch_search`` and ``doc`` with Pyserini's signatures, so it can replace a LuceneSearcher or
    FaissSearcher, for example in a HybridSearcher. All other attributes are those of ``searcher``.
    """

    searcher: Any = None  # while it is being copied or unpickled

    def __init__(self, searcher: Any, reranker: Reranker, depth: int = 1000) -> None:
        check_count("depth", depth)
        self.searcher = searcher
        self.reranker = reranker
        self.depth = depth

    def search(self, query: str, k: int = 10, *options: Any, **named: Any) -> list[RerankedHit]:
        """The best ``k`` after reranking; all options go to the first stage. An empty query finds nothing."""
        _check_text(query)
        if not query.strip():
            return []
        places, named = _asked({"k": max(k, self.depth)}, options, named)
        return rerank_hits(self.reranker, query, self.searcher.search(query, *places, **named), k)

    def batch_search(
        self, queries: Sequence[str], qids: Sequence[str], k: int = 10, threads: int = 1, *options: Any, **named: Any
    ) -> dict[str, list[RerankedHit]]:
        """The best ``k`` of every query; ``threads`` and all options go to the first stage."""
        check_strings("queries", queries)
        check_strings("qids", qids)
        for query in queries:
            _check_text(query)
        asked = {qid: query for qid, query in zip(qids, queries, strict=True) if query.strip()}
        found: Mapping[str, Sequence[Any]] = {}
        if asked:
            places, named = _asked({"k": max(k, self.depth), "threads": threads}, options, named)
            found = self.searcher.batch_search([*asked.values()], [*asked], *places, **named)
        hits = {qid: found.get(qid, []) for qid in asked}
        ranked = self.reranker.rerank_batch(asked, hits, k)
        return {qid: _with_hits(ranked.get(qid, []), hits.get(qid, [])) for qid in qids}

    def doc(self, docid: str | int) -> Any:
        return self.searcher.doc(docid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.searcher, name)


class LuceneTexts:
    """docids -> texts, from a Lucene index that stores its documents: the ``texts`` of a Reranker."""

    def __init__(self, searcher: Any, threads: int = 1) -> None:
        self._searcher = searcher
        self._threads = threads

    def __call__(self, docids: Sequence[str]) -> Mapping[str, str]:
        check_strings("docids", docids)
        found = self._searcher.batch_doc(list(docids), self._threads)
        return {docid: _document(docid, stored).content for docid, stored in found.items()}


class LuceneCorpus:
    """All documents of a Lucene index that stores them. Raises InputError if it does not."""

    def __init__(self, folder: str | Path) -> None:
        self._searcher = open_searcher(folder)

    def __iter__(self) -> Iterator[Document]:
        bits = importlib.import_module("jnius").autoclass("org.apache.lucene.index.MultiBits")
        live = bits.getLiveDocs(self._searcher.object.reader)
        for number in range(self._searcher.num_docs):  # deleted documents keep their numbers
            if live is None or live.get(number):
                stored = self._searcher.doc(number)
                yield _document(stored.docid(), stored)


def named_topics(name: str) -> dict[str, str]:
    """Topics by a name that Pyserini knows (``dl19-passage``): qid -> query. It may fetch them from the network.

    Raises InputError if Pyserini does not know the name or cannot fetch the topics.
    """
    start_java()
    from pyserini.search import get_topics

    java_error = importlib.import_module("jnius").JavaException
    try:
        topics = get_topics(name)
    except (ValueError, KeyError):
        raise InputError(f"no file of topics at {name!r}, and Pyserini knows no topics of that name") from None
    except java_error as error:
        reason = str(error).splitlines()[0].partition(": ")[2]  # after "JVM exception occurred"; a stack trace follows
        raise InputError(f"Pyserini cannot fetch the topics {name!r}: {reason}") from None
    return {str(qid): fields["title"] for qid, fields in topics.items()}


def _check_text(query: object) -> None:
    if not isinstance(query, str):
        raise InputError(f"the ranker reads the query's text: give a string, not a {type(query).__name__}")


def _asked(
    own: dict[str, int], options: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments; keywords if possible: a HybridSearcher's second positional argument is k0."""
    return ((*own.values(), *options), named) if options else ((), own | named)


def _with_hits(docs: Sequence[ScoredDoc], hits: Sequence[Any]) -> list[RerankedHit]:
    by_docid = {str(hit.docid): hit for hit in hits}
    return [RerankedHit(doc, by_docid[doc.docid]) for doc in docs]


def _document(docid: str, stored: Any) -> Document:
    raw = stored.raw() or stored.contents()
    if raw is None:
        raise InputError(
            f"the Lucene index does not store its documents ({docid!r}): build it with --storeRaw, or with "
            "mixlm-rerank bm25 index"
        )
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return Document(docid, raw)
    title, text = document_text(fields, f"document {docid!r} of the Lucene index")
    return Document(docid, text, title)
