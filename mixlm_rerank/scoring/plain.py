"""The scorer interface and its plain implementations: the reference, full-text mode and the bi-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..model import MixLM
from ..model.fingerprint import weights_hash
from ..model.running import inference, of_like_length

__all__ = ["BiEncoderScorer", "FullTextScorer", "ReferenceScorer", "Scorer", "check_titles"]


class Scorer(Protocol):
    """Computes log-odds from queries and the embedding tokens of their candidates."""

    def score(self, query: str, tokens: Tensor, titles: Tensor | None = None) -> Tensor:
        """Log-odds for one query. Embedding tokens, float [n, k, d] -> float32 [n] on the CPU.

        ``titles``: token ids of titles, int32 [n, t], -1 after their end; given only if the model reads titles.
        """
        return self.score_batch([query], [tokens], None if titles is None else [titles])[0]

    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Log-odds for many queries, with the same k for all; equal to :meth:`score` of each query."""
        ...


def check_titles(model: MixLM, tokens: Sequence[Tensor], titles: Sequence[Tensor] | None) -> None:
    """Raises InputError unless ``titles`` are what :meth:`Ranker.titles` gives for each query's candidates."""
    if titles is None:
        return
    most, known = model.config.title_tokens, len(cast(Tensor, model.ranker.backbone.get_input_embeddings().weight))
    if not most:
        raise InputError(
            f"{model.name} reads no titles: leave them out, or load it with MixLM.from_pretrained(..., title_tokens=16)"
        )
    if [len(own) for own in titles] != [len(own) for own in tokens]:
        raise InputError(
            f"titles of {[len(own) for own in titles]} candidates do not fit tokens of {[len(own) for own in tokens]}"
        )
    for own in titles:
        if list(own.shape[1:]) != [most] or own.is_floating_point():
            raise InputError(f"titles must be integers [n, {most}], not {own.dtype} {list(own.shape)}")
        if own.numel() and (own.max() >= known or (own[:, 1:] >= 0)[own[:, :-1] < 0].any()):
            raise InputError(f"titles must be token ids below {known}, with -1 after their end alone")


class ReferenceScorer(Scorer):
    """``readout(ranker([prefix ; title ; tokens ; score token])) + residual``: one document at a time."""

    def __init__(self, model: MixLM) -> None:
        self._model = model

    def score(self, query: str, tokens: Tensor, titles: Tensor | None = None) -> Tensor:
        check_titles(self._model, [tokens], None if titles is None else [titles])
        with inference(self._model):
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
        """The residual, spelled out instead of using the readout's code."""
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

    The cross-encoder to compare MixLM with. The residual needs the embedding tokens: the caller's, from a token index,
    or else they are encoded here (which doubles the cost).
    """

    def __init__(self, model: MixLM) -> None:
        self._model = model

    def score(self, query: str, texts: Sequence[str], tokens: Tensor | None = None) -> Tensor:
        """Document texts (and their embedding tokens, float [n, k, d]) -> log-odds, float32 [n]."""
        with inference(self._model):
            model = self._model
            (prefix,) = model.ranker.inputs([query])
            documents = model.ranker.documents(texts, [len(prefix)] * len(texts))
            scores = torch.empty(len(texts), dtype=torch.float32, device=model.device)
            for rows in of_like_length(documents, model.device, len(prefix) + 1):
                states = model.ranker.forward_texts([prefix] * len(rows), [documents[row] for row in rows])
                scores[rows] = model.readout(states)
            if model.config.residual != "none" and tokens is None:
                tokens = torch.from_numpy(model.encode(texts))
            return scores.cpu() if tokens is None else model.with_residual([query], [tokens], [scores])[0]

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return weights_hash(self._model)

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Log-odds of each query's texts, for use as a teacher: float32 [n] per query."""
        return [self.score(query, own).numpy() for query, own in zip(queries, texts, strict=True)]


class BiEncoderScorer(Scorer):
    """The bi-encoder inside a MixLM: cosines of query and document embedding, without the ranker.

    Scores lie in [-1, 1] and are not log-odds. It reads the last embedding token only, and no titles. It is a poor
    baseline in a model cut out of a cross-encoder: that item encoder was never a bi-encoder.
    """

    def __init__(self, model: MixLM) -> None:
        self._model = model

    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        with inference(self._model):
            embeddings = self._model.item_encoder.embed_queries(queries)
            return [
                F.cosine_similarity(embedding[None], candidates[:, -1, : len(embedding)].float(), dim=-1)
                for embedding, candidates in zip(embeddings, tokens, strict=True)
            ]
