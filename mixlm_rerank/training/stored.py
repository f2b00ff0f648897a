"""A slow teacher's scores, looked up: known for a query's own candidates, unknown for all other pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlm_rerank.training.pools import Pool

__all__ = ["StoredTeacher"]


class StoredTeacher:
    """A :data:`PairTeacher` over what :func:`teacher_scores` computed."""

    def __init__(self, pools: Sequence[Pool], texts: Mapping[str, str], scores: NDArray[np.floating]) -> None:
        self._scores = {
            pool.query: {texts[docid]: float(score) for docid, score in zip(pool.docids, row, strict=False)}
            for pool, row in zip(pools, scores, strict=True)
        }

    def __call__(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        """Texts [q], [n] -> float32 [q, n]; NaN for pairs that were not scored."""
        known = [self._scores.get(query, {}) for query in queries]
        return torch.tensor([[scores.get(document, torch.nan) for document in documents] for scores in known])
