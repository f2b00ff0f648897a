"""What the reranker needs of a place that holds embedding tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .manifest import Manifest

__all__ = ["Fetched", "TokenStore"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Embedding tokens of some docids.

    Attributes:
        tokens: float32 [m, k, d], of the documents that were found, in the order asked for; those of a document's
            passages one after the other.
        counts: int64 [n], how many of the m belong to each docid asked for; 0: it was not found.
        titles: int32 [m, t], token ids of titles, -1 after their end; None in an index without.
    """

    tokens: NDArray[np.float32]
    counts: NDArray[np.int64]
    titles: NDArray[np.int32] | None = None

    @property
    def found(self) -> NDArray[np.bool_]:
        """bool [n], one for each docid asked for."""
        return self.counts > 0


class TokenStore(Protocol):
    """A read view of a token index: a local folder, a shared cache. ``str(store)`` names it in messages."""

    @property
    def manifest(self) -> Manifest: ...

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """Embedding tokens of many documents at once; the last ``tokens`` of each (all of them for ``None``)."""
        ...
