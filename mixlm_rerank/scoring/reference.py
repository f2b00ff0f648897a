"""The reference scorer: one document at a time, in the plainest code. Every faster way must equal it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model import MixLM
from ..model.running import scoring
from .titles import check_titles

__all__ = ["ReferenceScorer"]


class ReferenceScorer:
    """``readout(ranker([prefix ; title ; tokens ; score token])) + residual``, document by document."""

    def __init__(self, model: MixLM) -> None:
        self._model = model

    @scoring
    def score(self, query: str, tokens: Tensor, titles: Tensor | None = None) -> Tensor:
        """Embedding tokens, float [n, k, d], and titles, int [n, t], -1 after their end -> log-odds, float32 [n]."""
        model = self._model
        check_titles(model, [tokens], None if titles is None else [titles])
        prefix = model.ranker.prefixes([query])[0]
        scores = torch.empty(len(tokens), dtype=torch.float32)
        for row, document in enumerate(model.project(tokens)):
            if titles is not None:
                title = titles[row][titles[row] >= 0]
                document = torch.cat([model.ranker.embedded(title), document])
            scores[row] = model.readout(model.ranker([prefix], [document])[0])
        return scores + self._residual(query, tokens.float())

    def _residual(self, query: str, tokens: Tensor) -> Tensor:
        """Spelled out, and not by the readout's own code."""
        model, readout = self._model, self._model.readout
        scores = torch.zeros(len(tokens), dtype=torch.float32)
        if model.config.residual == "none":
            return scores
        states = model.item_encoder.query_states([query])[0].cpu()
        embedding = model.item_encoder.embed_queries([query])[0]
        for row, document in enumerate(tokens.cpu()):
            if readout.cosine_weight is not None:
                scores[row] += float(readout.cosine_weight) * torch.cosine_similarity(embedding, document[-1], dim=0)
            if readout.late_weight is not None:
                best = [max(float(torch.cosine_similarity(state, t, dim=0)) for t in document) for state in states]
                scores[row] += float(readout.late_weight) * sum(best) / len(best)
        return scores

    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        given = [None] * len(tokens) if titles is None else titles
        return [self.score(*each) for each in zip(queries, tokens, given, strict=True)]
