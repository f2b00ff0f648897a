"""The readout: a hidden state -> log-odds, in float32 for any backbone dtype; and the residual added to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from .config import Head, Residual

__all__ = ["BI_ENCODER_SCALE", "Readout", "late_interaction"]

# Cosines of a contrastive bi-encoder are trained with a temperature of 1/20 (sentence-transformers' default scale).
BI_ENCODER_SCALE = 20.0


class Readout(nn.Module):
    """``log-odds = w_score . head(h) + b  (+ w_cosine * cos(q, d) (+ w_late * late interaction))``.

    ``head`` is the identity, or the hidden layer of a cross-encoder's own head.

    For a decoder ``w_score`` starts as the difference of the language model head's "yes" and "no" rows, so that the
    first term is logit(yes) - logit(no); for a bidirectional encoder it starts at zero. float32 keeps near-ties apart.
    """

    cosine_weight: nn.Parameter | None
    late_weight: nn.Parameter | None

    def __init__(self, hidden_size: int, residual: Residual, head: Head = "linear") -> None:
        super().__init__()
        activation, _, norm = head.partition("+")
        layers: list[nn.Module] = []
        if activation != "linear":
            layers += [nn.Linear(hidden_size, hidden_size, dtype=torch.float32), ACT2FN[activation]]
        if norm:
            layers.append(nn.LayerNorm(hidden_size, dtype=torch.float32))
        self.head = nn.Sequential(*layers)
        self.score = nn.Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        parts = {"none": 0, "cosine": 1, "late": 2}[residual]
        start = torch.tensor(BI_ENCODER_SCALE / max(parts, 1), dtype=torch.float32)
        weights = [nn.Parameter(start.clone()) if part < parts else None for part in range(2)]
        self.cosine_weight, self.late_weight = weights

    def forward(self, states: Tensor) -> Tensor:
        """Log-odds of the ranker, without the residual. [..., hidden_size] -> float32 [...]."""
        with torch.autocast(states.device.type, enabled=False):  # mixed precision would make ties
            return self.score(self.head(states.float())).squeeze(-1)  # type: ignore[no-any-return]

    def residual(self, queries: Tensor, states: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Residual log-odds of every query-document pair.

        Args:
            queries: query embeddings, [q, d].
            states: final hidden states of each query in the item encoder, [length, d].
            tokens: embedding tokens of the documents, [n, k, d].

        Returns:
            float32 [q, n]; 0 without a residual.
        """
        scores = torch.zeros(queries.shape[0], tokens.shape[0], dtype=torch.float32, device=tokens.device)
        with torch.autocast(tokens.device.type, enabled=False):  # the weight of 20 scales rounding errors, too
            if self.cosine_weight is not None:
                cosines = F.normalize(queries.float(), dim=-1) @ F.normalize(tokens[:, -1].float(), dim=-1).T
                scores = scores + self.cosine_weight * cosines
            if self.late_weight is not None:
                scores = scores + self.late_weight * late_interaction(states, tokens)
        return scores


def late_interaction(states: Sequence[Tensor], tokens: Tensor) -> Tensor:
    """Mean over a query's states of the best cosine among a document's embedding tokens (MaxSim).

    Query states [length, d] per query, embedding tokens [n, k, d] -> float32 [q, n].
    """
    documents = F.normalize(tokens.float(), dim=-1)
    every = F.normalize(torch.cat(list(states)).float(), dim=-1)
    best = (documents @ every.T).amax(dim=1)  # [n, all states]
    return torch.stack([own.mean(dim=1) for own in best.split([own.shape[0] for own in states], dim=1)])
