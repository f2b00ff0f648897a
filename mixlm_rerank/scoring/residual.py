"""The residual part of the score, shared by the scorers that work in batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model import MixLM
from ..model.running import moved

__all__ = ["add_residual"]


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
