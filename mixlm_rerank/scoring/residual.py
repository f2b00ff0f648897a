"""The residual term of the score, shared by the scorers that work in batches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..model import MixLM

__all__ = ["add_residual"]


def add_residual(
    model: MixLM, queries: Sequence[str], tokens: Sequence[Tensor], scores: Sequence[Tensor]
) -> list[Tensor]:
    """``score + w * cos(query embedding, last embedding token)`` for every candidate of every query.

    ``tokens``: float [n, k, d] a query, of which only the last is read. ``scores``: float32 [n] a query.
    """
    if not model.config.residual:
        return list(scores)
    embeddings = model.item_encoder.embed_queries(queries).to(model.device)
    return [
        score + model.readout.residual(embedding[None], candidates[:, -1].to(model.device)).cpu()
        for embedding, candidates, score in zip(embeddings, tokens, scores, strict=True)
    ]
