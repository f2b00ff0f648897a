"""What other software has ranked, out of its run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixlm_rerank.data import read_run
from mixlm_rerank.data.lines import some_ids
from mixlm_rerank.errors import InputError
from mixlm_rerank.ranking import ranked
from mixlm_rerank.systems.protocol import Footprint, Kind
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["RankedElsewhere"]


class RankedElsewhere:
    """The candidates in the order of a TREC or MS MARCO run; those that it lacks come last.

    Raises InputError for a run that cannot be read, and when it ranks for a query that is not in the run, or of which
    the run has none of the candidates: the first stage's order would pass for a ranking.
    """

    kind: Kind = "other"
    tokens = None
    pointwise = False  # nobody knows
    seed_group = None

    def __init__(self, path: Path) -> None:
        self.name = f"run {path.stem}"
        self._path, self._run = path, read_run(path)
        self.description = f"run {path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
        self._scores: dict[str, dict[str, float]] = {}

    def prepare(self, work: Workplace) -> Footprint | None:
        self._scores = {}
        for qid, query in work.collection.queries.items():
            own = {hit.docid: hit.score for hit in self._run.get(qid, [])}
            if self._scores.setdefault(query, own) != own:
                raise InputError(f"{self._path} has two different rankings for the query {query!r}, which occurs twice")
        return None

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        own = self._scores[query]
        found = np.array([hit.docid in own for hit in candidates], dtype=bool)
        if len(found) and not found.any():
            held = "does not have it" if not own else f"has other documents of it ({some_ids(own)})"
            raise InputError(
                f"{self._path} ranks no candidate of the query {query!r}: it {held}. Is it of this collection?"
            )
        return ranked(candidates, found, np.array([own[hit.docid] for hit in candidates if hit.docid in own]))
