"""The reference scorer: one document at a time, in the plainest code. Every faster way must equal it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model import MixLM

__all__ = ["ReferenceScorer"]


class ReferenceScorer:
    """``readout(ranker([prefix ; tokens ; score token])) + residual``, document by document."""

    def __init__(self, model: MixLM) -> None:
        self._model = model

    @torch.inference_mode()
    def score(self, query: str, tokens: Tensor) -> Tensor:
        """Embedding tokens, float [n, k, d] -> log-odds, float32 [n]."""
        model = self._model
        prefix = model.ranker.prefixes([query])[0]
        scores = torch.empty(len(tokens))
        for row, document in enumerate(model.project(tokens)):
            scores[row] = model.readout(model.ranker([prefix], [document])[0])
        if model.config.residual:
            embedding = model.item_encoder.embed_queries([query]).to(model.device)
            for row, document_embedding in enumerate(tokens[:, -1].to(model.device)):
                scores[row] += model.readout.residual(embedding, document_embedding[None])[0].cpu()
        return scores

    def score_batch(self, queries: Sequence[str], tokens: Sequence[Tensor]) -> list[Tensor]:
        return [self.score(query, candidates) for query, candidates in zip(queries, tokens, strict=True)]
