"""Systems made of others: runs of other software, mixtures with the first stage, reranking its top, weighted sums."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mixlm_rerank.data import read_run
from mixlm_rerank.data.corpus import identify
from mixlm_rerank.data.lines import some_ids
from mixlm_rerank.errors import InputError
from mixlm_rerank.ranking import Weight, check_weight, interpolated
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.members import Members, weighted_sum
from mixlm_rerank.systems.protocol import Footprint, System, by_score_where
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Ensemble", "Interpolated", "RankedElsewhere", "Shallow", "mixed"]


class RankedElsewhere(System):
    """Ranks candidates in the order of a TREC or MS MARCO run; candidates that the run lacks come last.

    Raises InputError for a run that cannot be read. Ranking raises InputError if the run lacks the query or all of its
    candidates: the first stage's order would pass for a ranking.
    """

    pointwise = False  # unknown

    def __init__(self, path: Path) -> None:
        self.name = f"run {path.stem}"
        self._path, self._run = path, read_run(path)
        self.description = f"run {path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"

    def prepare(self, work: Workplace) -> None:
        self._scores: dict[str, dict[str, float]] = {}
        for qid, query in work.collection.queries.items():
            own = {hit.docid: hit.score for hit in self._run.get(qid, [])}
            if self._scores.setdefault(query, own) != own:
                raise InputError(f"{self._path} has two different rankings for the query {query!r}, which occurs twice")

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        own = self._scores[query]
        found = [hit.docid in own for hit in candidates]
        if found and not any(found):
            held = "does not have it" if not own else f"has other documents of it ({some_ids(own)})"
            raise InputError(
                f"{self._path} ranks no candidate of the query {query!r}: it {held}. Is it of this collection?"
            )
        return by_score_where(found, candidates, lambda hits: [own[hit.docid] for hit in hits])


class Interpolated(System):
    """Mixes a system's ranking with the first stage's: see :func:`mixlm_rerank.ranking.interpolated`."""

    kind = "combination"
    pointwise = False

    def __init__(self, system: System, weight: Weight) -> None:
        check_weight(weight)
        self.system, self.weight = system, weight
        shown = weight if isinstance(weight, str) else f"{weight:g}"
        self.name = f"{system.name} + {shown} first stage"
        self.seed_group = system.seed_group and f"{system.seed_group} + {shown} first stage"
        self.tokens = system.tokens
        self.description = f"{system.description}; first-stage weight {shown}"

    def prepare(self, work: Workplace) -> Footprint | None:
        return self.system.prepare(work)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return mixed(candidates, self.system.rank(query, candidates), self.weight)


class Shallow(System):
    """The system ranks the first stage's best ``depth`` candidates; the others keep their order below them."""

    kind = "combination"
    pointwise = False

    def __init__(self, system: System, depth: int) -> None:
        if depth < 1:
            raise InputError(f"the first stage's best {depth}: give at least 1")
        self.system, self.depth = system, depth
        below = f", first stage's best {depth}"
        self.name, self.description = system.name + below, system.description + below
        self.seed_group = system.seed_group and system.seed_group + below
        self.tokens = system.tokens

    def prepare(self, work: Workplace) -> Footprint | None:
        return self.system.prepare(work)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        scores = {doc.docid: doc.score for doc in self.system.rank(query, candidates[: self.depth]) if not doc.missing}
        found = [hit.docid in scores for hit in candidates]
        return by_score_where(found, candidates, lambda hits: [scores[hit.docid] for hit in hits])


def mixed(candidates: Sequence[Candidate], docs: Sequence[ScoredDoc], weight: Weight) -> list[ScoredDoc]:
    """Rank candidates by their scores in ``docs`` mixed with their first-stage scores; those without one come last."""
    scores = {doc.docid: doc.score for doc in docs if not doc.missing}
    return by_score_where(
        [hit.docid in scores for hit in candidates],
        candidates,
        lambda hits: interpolated(
            np.array([scores[hit.docid] for hit in hits]), np.array([hit.score for hit in hits]), weight
        ),
    )


class Ensemble(System):
    """A teacher: the weighted sum of its members (see :mod:`.members`), the quality that a student can hope for.

    BM25's statistics come from the collection's documents; with ``--candidates-only`` these are the candidates.

    ``weights``: member -> weight. Raises InputError for an unknown word, or a model that cannot be loaded.
    """

    kind = "full text"

    def __init__(self, name: str, weights: Mapping[str, float], loading: Loading = Loading()) -> None:
        self._members = Members(weights, loading)
        self._weights = weights
        self.name = name
        fingerprints = [member.fingerprint for member in self._members.of([], "")]
        parts = (f"{weight:g} {word}" for word, weight in weights.items())
        self.description = f"ensemble: {', '.join(parts)}; {' '.join(fingerprints)}"

    def prepare(self, work: Workplace) -> None:
        corpus = work.collection.documents(f"the {self.name}")
        texts = [document.content for document in corpus if document.content.strip()]
        self._made = self._members.of(texts, identify(corpus).digest, work.folder)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        def scores(hits: Sequence[Candidate]) -> object:
            return weighted_sum(self._made, self._weights.values(), [query], [[hit.text or "" for hit in hits]])[0]

        return by_score_where([bool((hit.text or "").strip()) for hit in candidates], candidates, scores)
