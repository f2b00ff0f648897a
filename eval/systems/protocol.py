"""What the harness needs of a system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mixlm_rerank.eval.results import Kind
from mixlm_rerank.eval.workplace import Workplace
from mixlm_rerank.ranking import ranked
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Footprint", "System", "by_score"]


@dataclass(frozen=True)
class Footprint:
    """What a system has computed of the documents before the first query.

    Attributes:
        bytes_per_document: on disk.
        build_seconds: what making it took; None if that is not known.
    """

    bytes_per_document: float
    build_seconds: float | None


class System(Protocol):
    """Ranks the candidates of one query.

    Attributes:
        name: short, for tables; unique within an evaluation.
        description: exactly what it is. A ranking is made anew where this has changed.
        kind: for colours and words of the report.
        tokens: the token budget, or None.
        pointwise: whether a document's score depends on no other candidate; then its depth curve needs no new run.
        seed_group: systems that differ only in their seed share this name; None for one that stands alone.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def tokens(self) -> int | None: ...

    @property
    def pointwise(self) -> bool: ...

    @property
    def seed_group(self) -> str | None: ...

    def prepare(self, work: Workplace) -> Footprint | None:
        """Get ready for one collection: open indexes, say. None for a system that computes nothing beforehand."""
        ...

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        """All candidates, best first. They carry their texts."""
        ...


def by_score(candidates: Sequence[Candidate], scores: Any) -> list[ScoredDoc]:
    """Candidates by the scores that a system gave to each. ``scores``: array-like [n]."""
    return ranked(candidates, np.ones(len(candidates), dtype=bool), np.asarray(scores, dtype=np.float64))
