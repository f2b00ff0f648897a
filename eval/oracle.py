"""The oracle: candidates in the order of their judgments, the ceiling of any reranker of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["oracle"]


def oracle(
    run: Mapping[str, Sequence[Candidate]], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, list[ScoredDoc]]:
    """Each query's candidates by falling grade (unjudged: 0), equal grades as they stand.

    Examples:
        >>> ranked = oracle({"q": [Candidate("a", 2.0), Candidate("b", 1.0)]}, {"q": {"b": 1}})
        >>> [doc.docid for doc in ranked["q"]]
        ['b', 'a']
    """
    ranked = {}
    for qid, hits in run.items():
        grades = qrels.get(qid, {})
        best = sorted(hits, key=lambda hit: -grades.get(hit.docid, 0))
        ranked[qid] = [ScoredDoc(hit.docid, -float(rank), rank, hit.score) for rank, hit in enumerate(best, 1)]
    return ranked
