"""Any system, mixed with the first stage's own score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_rerank.ranking import Weight, check_weight, interpolated, ranked
from mixlm_rerank.systems.protocol import Footprint, Kind, System
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Interpolated", "mixed"]


class Interpolated:
    """The system and the first stage in one ranking: see :func:`mixlm_rerank.ranking.interpolated`."""

    kind: Kind = "combination"
    pointwise = False

    def __init__(self, system: System, weight: Weight) -> None:
        check_weight(weight)
        self.system, self.weight = system, weight
        self._weight = weight if isinstance(weight, str) else f"{weight:g}"
        self.name = self._named(system.name)
        self.seed_group = None if system.seed_group is None else self._named(system.seed_group)
        self.tokens = system.tokens

    @property
    def description(self) -> str:
        return f"{self.system.description}; first-stage weight {self._weight}"

    def prepare(self, work: Workplace) -> Footprint | None:
        return self.system.prepare(work)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return mixed(candidates, self.system.rank(query, candidates), self.weight)

    def _named(self, name: str) -> str:
        return f"{name} + {self._weight} first stage"


def mixed(candidates: Sequence[Candidate], docs: Sequence[ScoredDoc], weight: Weight) -> list[ScoredDoc]:
    """Candidates by their scores in ``docs``, mixed with their own (of the first stage); those without a score last."""
    scores = {doc.docid: doc.score for doc in docs if not doc.missing}
    found = np.array([hit.docid in scores for hit in candidates])
    kept = [hit for hit in candidates if hit.docid in scores]
    own, first_stage = np.array([scores[hit.docid] for hit in kept]), np.array([hit.score for hit in kept])
    return ranked(candidates, found, interpolated(own, first_stage, weight))
