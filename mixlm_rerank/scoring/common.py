"""What scorers have in common: what the reranker needs of them, the check of their titles, and the residual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from ..errors import InputError
from ..model import MixLM
from ..model.running import moved

__all__ = ["Scorer", "add_residual", "check_titles"]


class Scorer(Protocol):
    """Log-odds of queries and the embedding tokens of their candidates."""

    def score(self, query: str, tokens: Tensor, titles: Tensor | None = None) -> Tensor:
        """One query. Embedding tokens, float [n, k, d] -> log-odds, float32 [n] on the CPU.

        ``titles``: token ids of titles, int32 [n, t], -1 after their end; given only if the model reads titles.
        """
        return self.score_batch([query], [tokens], None if titles is None else [titles])[0]

    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Many queries, the same k for all; equal to :meth:`score` of each."""
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


def add_residual(
    model: MixLM, queries: Sequence[str], tokens: Sequence[Tensor], scores: Sequence[Tensor]
) -> list[Tensor]:
    """The scores with the residual of every candidate of every query, see :meth:`Readout.residual`, on the CPU.

    ``tokens``: float [n, k, d] a query. ``scores``: float32 [n] a query, where the model is; a GPU is waited for once.
    """
    if not scores:
        return []
    flat = torch.cat(list(scores))
    if model.config.residual != "none":
        encoder, readout = model.item_encoder, model.readout
        found = []
        for states, candidates in zip(encoder.query_states(queries), tokens, strict=True):
            query = encoder.embedding_of(states)[None]
            found.append(readout.residual(query, [states], moved(candidates, states.device))[0])
        flat = flat + torch.cat(found)
    return list(flat.cpu().split([len(own) for own in scores]))
