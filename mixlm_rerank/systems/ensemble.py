"""Members of a teacher (see :mod:`..members`) and their weighted sums as systems: what a student can hope for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixlm_rerank.data.identity import identify
from mixlm_rerank.ranking import ranked
from mixlm_rerank.systems import members
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.protocol import Kind
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Ensemble"]


class Ensemble:
    """BM25's statistics are those of the documents that are there: with ``--candidates-only`` the candidates.

    ``weights``: member -> weight. Raises InputError for another word, or a model that cannot be loaded.
    """

    kind: Kind = "full text"
    tokens: int | None = None
    seed_group: str | None = None
    pointwise = True

    def __init__(self, name: str, weights: Mapping[str, float], loading: Loading = Loading()) -> None:
        self._members = members.Members(weights, loading)
        self._weights = weights
        self.name = name
        made_by = [member.made_by for member in self._members.of([], "")]
        parts = (f"{weight:g} {word}" for word, weight in weights.items())
        self.description = f"ensemble: {', '.join(parts)}; {' '.join(made_by)}"

    def prepare(self, work: Workplace) -> None:
        corpus = work.documents(f"the {self.name}")
        texts = [document.content for document in corpus if document.content.strip()]
        found = self._members.of(texts, identify(corpus).digest, work.folder)
        self._ensemble = members.Ensemble(list(zip(found, self._weights.values(), strict=True)))

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        texts = [hit.text or "" for hit in candidates]
        found = np.array([bool(text.strip()) for text in texts], dtype=bool)
        (scores,) = self._ensemble.score_batch([query], [[text for text in texts if text.strip()]])
        return ranked(candidates, found, scores.astype(np.float64))
