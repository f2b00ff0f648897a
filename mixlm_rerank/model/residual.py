"""The residual part of the score: what of the bi-encoder's knowledge is added to the ranker's log-odds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .mixlm import MixLM

__all__ = ["residuals"]


def residuals(model: MixLM, queries: Sequence[str], states: Sequence[Tensor], tokens: Sequence[Tensor]) -> list[Tensor]:
    """Of every candidate of every query, see :meth:`Readout.residual`.

    Args:
        states: the ranker's of each query's prefix, float [length, d]; read under the residual ``"late"`` alone.
        tokens: embedding tokens of each query's candidates, float [n, k, d].

    Returns:
        float32 [n] a query, on the CPU.
    """
    kind = model.config.residual
    if kind == "none":
        return [torch.zeros(len(candidates)) for candidates in tokens]
    if kind == "cosine":
        states = [embedding[None].to(model.device) for embedding in model.item_encoder.embed_queries(queries)]
        tokens = [candidates.to(model.device) for candidates in tokens]
    else:
        tokens = [model.project(candidates) for candidates in tokens]
    return [model.readout.residual(own, read).cpu() for own, read in zip(states, tokens, strict=True)]
