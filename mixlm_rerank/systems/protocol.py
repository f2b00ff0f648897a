"""The protocol of systems: what the evaluation harness needs of them."""

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

# Kinds of systems, which decide colours, reference lines and the wording of a report.
Kind = Literal["first stage", "bi-encoder", "full text", "MixLM", "combination", "oracle", "other"]


@dataclass(frozen=True)
class Efficiency:
    """Cost of ranking, one query at a time, measured while the ranking was made."""

    documents_per_second: float  # candidates of all queries over the time spent on them
    p50_ms: float  # per query
    p99_ms: float
    peak_memory_bytes: int | None = None  # most resident memory of the process, models included; None if unknown
    index_bytes_per_document: float | None = None  # of the token index that the system reads; None without one
    build_seconds: float | None = None  # time to build that index; None if it existed already


@dataclass(frozen=True)
class Footprint:
    """Size and build time of what a system computes from the documents before the first query."""

    bytes_per_document: float  # on disk
    build_seconds: float | None  # None if unknown


class System(Protocol):
    """Ranks the candidates of one query. The defaults are what most systems have in common."""

    name: str  # short, for tables; unique within an evaluation
    description: str  # an exact description: if it changes, the ranking is made anew
    kind: Kind = "other"  # for colours and words of the report
    tokens: int | None = None  # the token budget
    pointwise: bool = True  # a document's score depends on no other candidate: its depth curve needs no new run
    seed_group: str | None = None  # shared by systems that differ only in their seed; None for one that stands alone

    def prepare(self, work: Workplace) -> Footprint | None:
        """Get ready for one collection: open indexes, say. None for a system that computes nothing beforehand."""
        return None

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        """All candidates, best first. ``candidates`` carry their texts."""
        ...


def by_score(candidates: Sequence[Candidate], scores: Any) -> list[ScoredDoc]:
    """Rank candidates by the scores that a system gave them. ``scores``: array-like [n]."""
    return ranked(candidates, np.ones(len(candidates), dtype=bool), np.asarray(scores, dtype=np.float64))


def by_score_where(
    known: Sequence[bool], candidates: Sequence[Candidate], score: Callable[[Sequence[Candidate]], Any]
) -> list[ScoredDoc]:
    """Rank the ``known`` candidates by ``score`` of them, array-like [m]; the others come last."""
    hits = list(compress(candidates, known))
    scores = score(hits) if hits else []
    return ranked(candidates, np.array(known, dtype=bool), np.asarray(scores, dtype=np.float64))
