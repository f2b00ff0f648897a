"""What the harness needs of a system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal, Protocol

import numpy as np

from mixlm_rerank.ranking import ranked
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Efficiency", "Footprint", "Kind", "System", "by_score", "by_score_where"]

# What a system is, for colours, reference lines and the words of a report.
Kind = Literal["first stage", "bi-encoder", "full text", "MixLM", "combination", "oracle", "other"]


@dataclass(frozen=True)
class Efficiency:
    """What ranking cost, one query at a time, measured while the ranking was made.

    Attributes:
        documents_per_second: candidates of all queries over the time spent on them.
        p50_ms, p99_ms: milliseconds a query.
        peak_memory_bytes: the most resident memory of the process meanwhile (models included); None if unknown.
        index_bytes_per_document: of the token index that the system reads; None for systems without one.
        build_seconds: what building that index took; None if it was there already.
    """

    documents_per_second: float
    p50_ms: float
    p99_ms: float
    peak_memory_bytes: int | None = None
    index_bytes_per_document: float | None = None
    build_seconds: float | None = None


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
    """Ranks the candidates of one query. What most systems have in common is the default.

    Attributes:
        name: short, for tables; unique within an evaluation.
        description: exactly what it is. A ranking is made anew where this has changed.
        kind: for colours and words of the report.
        tokens: the token budget, or None.
        pointwise: whether a document's score depends on no other candidate; then its depth curve needs no new run.
        seed_group: systems that differ only in their seed share this name; None for one that stands alone.
    """

    name: str
    description: str
    kind: Kind = "other"
    tokens: int | None = None
    pointwise: bool = True
    seed_group: str | None = None

    def prepare(self, work: Workplace) -> Footprint | None:
        """Get ready for one collection: open indexes, say. None for a system that computes nothing beforehand."""
        return None

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        """All candidates, best first. They carry their texts."""
        ...


def by_score(candidates: Sequence[Candidate], scores: Any) -> list[ScoredDoc]:
    """Candidates by the scores that a system gave to each. ``scores``: array-like [n]."""
    return ranked(candidates, np.ones(len(candidates), dtype=bool), np.asarray(scores, dtype=np.float64))


def by_score_where(
    known: Sequence[bool], candidates: Sequence[Candidate], score: Callable[[Sequence[Candidate]], Any]
) -> list[ScoredDoc]:
    """Those candidates that are ``known`` by what ``score`` gives them, array-like [m]; the others come last."""
    hits = list(compress(candidates, known))
    scores = score(hits) if hits else []
    return ranked(candidates, np.array(known, dtype=bool), np.asarray(scores, dtype=np.float64))
