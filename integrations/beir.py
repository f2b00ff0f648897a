"""BEIR: reranking by docid, or by text under BEIR's own Rerank. docs/integrations/beir.md has an example that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixlm_rerank.arguments import check_count
from mixlm_rerank.documents import check_pairs, score_pairs
from mixlm_rerank.model import MixLM
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import Candidate, Document

__all__ = ["MixLMRerank", "PairScorer"]


class MixLMRerank:
    """Replaces ``beir.reranking.Rerank``: looks documents up in the index by docid."""

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker

    def rerank(
        self,
        corpus: Mapping[str, Mapping[str, str]],
        queries: Mapping[str, str],
        results: Mapping[str, Mapping[str, float]],
        top_k: int,
    ) -> dict[str, dict[str, float]]:
        """The best ``top_k`` of every query's first stage with new scores: qid -> {docid: score}.

        ``corpus`` (docid -> ``title``, ``text``) is only read for documents that must be encoded; otherwise ``{}`` is
        enough. A document that was not scored has a score below -10,000. Raises InputError for a query that
        ``queries`` lacks.
        """
        check_count("top_k", top_k)
        hits = {
            qid: [
                Candidate(docid, score, _text(corpus.get(docid)))
                for docid, score in sorted(found.items(), key=lambda item: -item[1])[:top_k]
            ]
            for qid, found in results.items()
        }
        ranked = self.reranker.rerank_batch(queries, hits)
        return {qid: {doc.docid: doc.score for doc in docs} for qid, docs in ranked.items()}


class PairScorer:
    """A cross-encoder for BEIR's Rerank: ``predict`` scores pairs of texts. Each text is encoded once."""

    def __init__(self, model: MixLM) -> None:
        self._reranker = Reranker(model)

    def predict(self, sentences: Sequence[Sequence[str]], batch_size: int = 32) -> list[float]:
        """Log-odds of [query, text] pairs. ``batch_size`` is ignored: pairs of a query are scored together."""
        check_pairs(sentences)
        return score_pairs(self._reranker, [(query, text) for query, text in sentences])


def _text(entry: Mapping[str, str] | None) -> str | None:
    if entry is None:
        return None
    return Document("", entry.get("text") or "", entry.get("title") or "").content
