"""The readout: a hidden state -> log-odds, in float32 whatever the backbone's dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Readout"]

# Cosines of a contrastive bi-encoder are trained with a temperature of 1/20 (sentence-transformers' default scale).
INITIAL_RESIDUAL_WEIGHT = 20.0


class Readout(nn.Module):
    """``log-odds = w_score . h + b  (+ w_residual * cos(q, d))``.

    For a decoder ``w_score`` starts as the difference of the language model head's "yes" and "no" rows, so that the
    first term is logit(yes) - logit(no); for a bidirectional encoder it starts at zero. float32 keeps near-ties apart.
    """

    residual_weight: nn.Parameter | None

    def __init__(self, hidden_size: int, *, residual: bool) -> None:
        super().__init__()
        self.score = nn.Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.residual_weight = nn.Parameter(torch.tensor(INITIAL_RESIDUAL_WEIGHT)) if residual else None

    def forward(self, states: Tensor) -> Tensor:
        """Log-odds of the ranker alone. [..., hidden_size] -> float32 [...]."""
        with torch.autocast(states.device.type, enabled=False):  # mixed precision would make ties
            return self.score(states.float()).squeeze(-1)  # type: ignore[no-any-return]

    def residual(self, query: Tensor, documents: Tensor) -> Tensor:
        """The residual term. Query embedding [d] or [n, d], document embeddings [n, d] -> float32 [n]."""
        assert self.residual_weight is not None
        return self.residual_weight * F.cosine_similarity(query.float(), documents.float(), dim=-1)
