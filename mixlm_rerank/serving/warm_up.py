"""Before the first request: what would make it slow."""

from __future__ import annotations

import torch

from mixlm_rerank.model import MixLM
from mixlm_rerank.scoring import SharedPrefixScorer

__all__ = ["warm_up"]

CANDIDATES = (1, 10, 100, 1000)


def warm_up(model: MixLM) -> None:
    """On a GPU, compile and record the forward passes of a few sizes; others are recorded when they first come."""
    model.ranker.compile_packed()
    scorer, width = SharedPrefixScorer(model), model.item_encoder.token_size
    for budget in {1, model.config.tokens}:
        for count in CANDIDATES:
            scorer.score("a query of a few words", torch.zeros(count, budget, width))
