"""What the reranker needs of a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

__all__ = ["Scorer"]


class Scorer(Protocol):
    """Log-odds of queries and the embedding tokens of their candidates."""

    def score(self, query: str, tokens: Tensor, titles: Tensor | None = None) -> Tensor:
        """One query. Embedding tokens, float [n, k, d] -> log-odds, float32 [n] on the CPU.

        ``titles``: token ids of titles, int32 [n, t], -1 after their end; given only if the model reads titles.
        """
        ...

    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Many queries; equal to :meth:`score` of each."""
        ...
