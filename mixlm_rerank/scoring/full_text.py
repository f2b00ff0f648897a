"""Full-text mode: the same ranker reads the document's text. The cross-encoder to compare MixLM with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model import MixLM
from ..model.inference import scoring
from ..model.positions import of_like_length
from .residual import add_residual

__all__ = ["FullTextScorer"]


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
        for rows in of_like_length(documents, model.device, len(prefix) + 1):
            states = model.ranker.forward_texts([prefix] * len(rows), [documents[row] for row in rows])
            scores[rows] = model.readout(states)
        if model.config.residual != "none" and tokens is None:
            tokens = torch.from_numpy(model.encode(texts))
        return scores.cpu() if tokens is None else add_residual(model, [query], [tokens], [scores])[0]
