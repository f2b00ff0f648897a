"""The cost of a request: token positions, of which a forward pass has some thousands."""

from __future__ import annotations

from collections.abc import Sequence

from mixlm_rerank.reranker import Reranker
from mixlm_rerank.serving.failures import RequestFailed
from mixlm_rerank.types import Candidate

__all__ = ["costs_of"]

# Characters of a text for each position: of what a model reads, and of the rest, which is tokenized and cut off.
READ, SKIPPED = 4, 400


def costs_of(reranker: Reranker, query: str, candidates: Sequence[Candidate], limit: int) -> list[int]:
    """Estimated token positions of each candidate: what the ranker reads of it, and its text if that must be encoded.

    The query, which is read once, is added to the first. Raises RequestFailed if the texts take more than ``limit``.
    """
    costs = [0] * len(candidates)
    config = reranker.model.config
    for place in reranker.unread(candidates):
        costs[place] = _positions(candidates[place].text or "", config.max_document_tokens)
    if sum(costs) > limit:
        size = f"about {sum(costs):,} tokens, over the limit of {limit:,} a request"
        raise RequestFailed(413, f"the texts have {size}: send fewer or shorter ones, or document_ids of an index")
    prefix = _positions(query, config.max_query_tokens)
    costs[0] += prefix
    _, own = reranker.model.ranker.positions(prefix, reranker.tokens)
    return [cost + own for cost in costs]


def _positions(text: str, most: int) -> int:
    return min(most, len(text) // READ + 1) + len(text) // SKIPPED
