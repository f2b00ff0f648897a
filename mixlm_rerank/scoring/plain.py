"""The plain scorers: the reference, which every faster way must equal, full-text mode, and the bi-encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model import MixLM
from ..model.running import of_like_length, scoring
from .common import Scorer, add_residual, check_titles

__all__ = ["BiEncoderScorer", "FullTextScorer", "ReferenceScorer"]


class ReferenceScorer(Scorer):
    """``readout(ranker([prefix ; title ; tokens ; score token])) + residual``: one document at a time."""

    def __init__(self, model: MixLM) -> None:
        self._model = model

    @scoring
    def score(self, query: str, tokens: Tensor, titles: Tensor | None = None) -> Tensor:
        check_titles(self._model, [tokens], None if titles is None else [titles])
        model = self._model
        prefix = model.ranker.prefixes([query])[0]
        scores = torch.empty(len(tokens), dtype=torch.float32)
        for row, document in enumerate(model.project(tokens)):
            if titles is not None:
                title = titles[row][titles[row] >= 0]
                document = torch.cat([model.ranker.embedded(title), document])
            scores[row] = model.readout(model.ranker([prefix], [document])[0])
        return scores + self._residual(query, tokens.float())

    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        given = [None] * len(tokens) if titles is None else titles
        return [self.score(*each) for each in zip(queries, tokens, given, strict=True)]

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


class FullTextScorer:
    """Full-text mode: ``readout(ranker([prefix ; document text ; score token])) + residual``.

    The cross-encoder to compare MixLM with. The residual needs the embedding tokens: taken from a token index where the
    caller has it, else encoded here (which doubles the cost).
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


class BiEncoderScorer(Scorer):
    """The bi-encoder inside a MixLM: cosines of query and document embedding, without the ranker.

    Scores lie in [-1, 1], and are no log-odds. Of the embedding tokens only the last is read; titles are not. A poor
    baseline in a model that was cut out of a cross-encoder: its item encoder was never a bi-encoder.
    """

    def __init__(self, model: MixLM) -> None:
        self._model = model

    @scoring
    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        embeddings = self._model.item_encoder.embed_queries(queries)
        return [
            F.cosine_similarity(embedding[None], candidates[:, -1, : len(embedding)].float(), dim=-1)
            for embedding, candidates in zip(embeddings, tokens, strict=True)
        ]
