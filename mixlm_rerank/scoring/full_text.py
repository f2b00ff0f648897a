"""Full-text mode: the same ranker reads the document's text. The cross-encoder to compare MixLM with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model import MixLM
from ..model.running import positions_per_forward, scoring
from .residual import add_residual

__all__ = ["FullTextScorer"]

POSITIONS_PER_FORWARD = 4096


class FullTextScorer:
    """``readout(ranker([prefix ; document text ; score token])) + residual``.

    The residual needs the embedding tokens: taken from a token index where the caller has it, else encoded here (which
    doubles the cost).
    """

    def __init__(self, model: MixLM) -> None:
        self._model = model

    @scoring
    def score(self, query: str, texts: Sequence[str], tokens: Tensor | None = None) -> Tensor:
        """Document texts (and their embedding tokens, float [n, k, d]) -> log-odds, float32 [n]."""
        model = self._model
        (prefix,) = model.ranker.inputs([query])
        documents = model.ranker.documents(texts, [len(prefix)] * len(texts))
        scores = torch.empty(len(texts), dtype=torch.float32, device=model.device)
        order = sorted(range(len(texts)), key=lambda row: -len(documents[row]))
        positions = positions_per_forward(model.device, POSITIONS_PER_FORWARD)
        while order:
            size = max(1, positions // (len(prefix) + len(documents[order[0]]) + 1))
            rows, order = order[:size], order[size:]
            states = model.ranker.forward_texts([prefix] * len(rows), [documents[row] for row in rows])
            scores[rows] = model.readout(states)
        if model.config.residual != "none" and tokens is None:
            tokens = torch.from_numpy(model.encode(texts))
        return scores.cpu() if tokens is None else add_residual(model, [query], [tokens], [scores])[0]
