"""rerankers (AnswerDotAI): a ranker. docs/integrations/rerankers.md has an example that runs.

``doc_ids`` are looked up in the reranker's index, if it has one; without an index they are only returned. A document
that was not scored is returned as a copy whose metadata has ``missing: True``.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from mixlm_rerank.arguments import check_strings
from mixlm_rerank.documents import marked, rank_documents
from mixlm_rerank.errors import optional_import
from mixlm_rerank.reranker import Reranker

with optional_import("this needs rerankers", "rerankers"):
    from rerankers.documents import Document
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result
    from rerankers.utils import prep_docs

__all__ = ["MixLMRanker"]


class MixLMRanker(BaseRanker):  # type: ignore[misc]  # untyped
    """A ranker whose scores are log-odds. Also works asynchronously (``rank_async``)."""

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker

    def rank(
        self,
        query: str,
        docs: str | Document | list[str] | list[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """The documents, best first. Raises InputError for documents without ids if texts are not encoded."""
        check_strings("doc_ids", doc_ids)
        documents = prep_docs(docs, doc_ids, metadata) if docs else []
        given = doc_ids is not None or any(
            isinstance(doc, Document) for doc in (docs if isinstance(docs, list) else [docs])
        )  # else prep_docs has numbered them
        docids = [document.doc_id for document in documents] if given else None
        ranked = rank_documents(self.reranker, query, [document.text for document in documents], docids)
        results = []
        for rank, (place, doc) in enumerate(ranked, 1):
            document = documents[place]
            if doc.missing:
                document = copy(document)
                document.metadata = marked(document.metadata, doc)
            results.append(Result(document=document, score=doc.score, rank=rank))
        return RankedResults(results=results, query=query, has_scores=True)

    def score(self, query: str, doc: str) -> float:
        """Log-odds of one text."""
        return rank_documents(self.reranker, query, [doc])[0][1].score
