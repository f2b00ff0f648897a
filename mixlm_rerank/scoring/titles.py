"""Titles that are scored beside embedding tokens: are they of these candidates, and of this ranker's vocabulary?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from ..errors import InputError
from ..model import MixLM

__all__ = ["check_titles"]


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
