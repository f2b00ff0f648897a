"""The residual part of the score, shared by the scorers that work in batches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..model import MixLM

__all__ = ["add_residual"]


def add_residual(
    model: MixLM, queries: Sequence[str], tokens: Sequence[Tensor], scores: Sequence[Tensor]
) -> list[Tensor]:
    """The scores with the residual of every candidate of every query, see :meth:`Readout.residual`.

    ``tokens``: float [n, k, d] a query. ``scores``: float32 [n] a query.
    """
    if model.config.residual == "none":
        return list(scores)
    encoder, readout = model.item_encoder, model.readout
    found = []
    for states, candidates, score in zip(encoder.query_states(queries), tokens, scores, strict=True):
        query = encoder.embedding_of(states)[None]
        found.append(score + readout.residual(query, [states], candidates.to(states.device))[0].to(score.device))
    return found
