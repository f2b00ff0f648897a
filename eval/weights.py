"""Fit weights on development queries: of the first stage's score in a mixture, and of the members of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.measures import evaluate, evaluate_queries
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.combined import mixed
from mixlm_rerank.systems.ranked import Candidates
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["WEIGHTS", "Development", "Fit", "fit_ensemble", "fit_weight"]

WEIGHTS = tuple(step / 20 for step in range(21))
FOLDS = 5
SPREAD = 9.0  # average log-odds between a query's best and worst candidate: how confident a teacher is
GAIN = 1e-4  # a smaller gain counts as none

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Development:
    """One system's rankings of the development queries of one collection."""

    candidates: Candidates
    ranking: Mapping[str, Sequence[ScoredDoc]]
    qrels: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Fit:
    """The measure at each weight."""

    measure: str  # the measure that the weight maximises
    values: Mapping[float, float]  # weight -> mean of the measure over collections, equally weighted
    # The measure if each query is mixed at the weight that is best on the other four folds; None below ten queries
    cross_validated: float | None
    worse: Mapping[float, int]  # weight -> number of queries on which the mixture is worse than the first stage
    queries: int

    @property
    def weight(self) -> float:
        """The best weight."""
        return max(self.values, key=lambda weight: self.values[weight])

    def __str__(self) -> str:
        best = self.weight
        honest = "" if self.cross_validated is None else f"{self.cross_validated:.4f} cross-validated, "
        return (
            f"weight {best:g} gives {self.measure} {self.values[best]:.4f} ({honest}{self.values[0.0]:.4f} alone, "
            f"{self.values[1.0]:.4f} for the first stage alone); worse than the first stage on {self.worse[best]:,} of "
            f"{self.queries:,} queries, {self.worse[0.0]:,} alone"
        )


def fit_weight(collections: Sequence[Development], measure: str) -> Fit:
    """Measure all of ``WEIGHTS`` on the same rankings."""
    rows = []
    for weight in WEIGHTS:
        values: list[float] = []
        for found in collections:
            run = {qid: mixed(hits, found.ranking[qid], weight) for qid, hits in found.candidates.of_query.items()}
            values += evaluate_queries(found.qrels, run, [measure])[measure].values()
        rows.append(values)
    table, of = np.array(rows), np.repeat(np.arange(len(collections)), [len(found.qrels) for found in collections])
    worse = (table < table[-1]).sum(axis=1).tolist()  # the last row: the first stage alone
    means = dict(zip(WEIGHTS, _means(table, of).tolist(), strict=True))
    honest = _cross_validated(table, of) if len(of) >= 2 * FOLDS else None
    return Fit(measure, means, honest, dict(zip(WEIGHTS, worse, strict=True)), len(of))


def _means(table: Floats, of: Ints) -> Floats:
    """Mean over each collection's queries, then over collections: [weights, queries] -> [weights]. ``of`` [queries]."""
    means: Floats = np.mean([table[:, of == collection].mean(axis=1) for collection in np.unique(of)], axis=0)
    return means


def _cross_validated(table: Floats, of: Ints) -> float:
    draw = np.random.default_rng(0)
    folds = np.concatenate([draw.permutation(count) % FOLDS for count in np.bincount(of)])
    held = np.empty((1, len(of)))
    for own in (folds == fold for fold in range(FOLDS)):
        held[0, own] = table[_means(table[:, ~own], of[~own]).argmax(), own]
    return float(_means(held, of)[0])


def fit_ensemble(members: Mapping[str, Sequence[Development]], measure: str) -> tuple[dict[str, float], float]:
    """Returns member -> weight, and the mean of the measure over collections, equally weighted.

    Coordinate ascent from equal shares: each member's share in turn is set to the best of 0, .05 ... 1 while the others
    keep their proportions, until nothing is gained. All members rank the same candidates of each collection.

    Raises InputError if there are no candidates.
    """
    collections = [(own[0], _stacked(own)) for own in zip(*members.values(), strict=True)]
    ranges = [np.ptp(scores, axis=1) for _, of in collections for scores in of.values() if scores.size]
    if not ranges:
        raise InputError("the first stage finds no candidates for any of these queries: there is nothing to fit")
    units: Floats = np.mean(ranges, axis=0)

    def weights(shares: Floats) -> Floats:
        found: Floats = np.divide(shares, units, where=units > 0, out=np.zeros_like(shares))
        return found

    def value(shares: Floats) -> float:
        values = []
        for found, scores in collections:
            run = {}
            for qid, hits in found.candidates.of_query.items():
                sums = (weights(shares) @ scores[qid]).tolist()
                run[qid] = [Candidate(hit.docid, score) for hit, score in zip(hits, sums, strict=True)]
            values.append(evaluate(found.qrels, run, [measure])[measure])
        return fmean(values)

    shares = np.full(len(members), 1 / len(members))
    best, before = value(shares), -1.0
    while best > before and len(members) > 1:
        before = best
        for member in range(len(members)):
            for tried in [_with_share(shares, member, share) for share in WEIGHTS]:
                found = value(tried)
                if found > best + GAIN:
                    shares, best = tried, found
    return dict(zip(members, (SPREAD * weights(shares)).round(3).tolist(), strict=True)), best


def _stacked(members: Sequence[Development]) -> dict[str, Floats]:
    """qid -> [members, candidates] scores; a candidate that a member could not score gets its lowest for the query."""
    rows: dict[str, list[list[float]]] = {}
    for found in members:
        for qid, hits in found.candidates.of_query.items():
            known = {doc.docid: doc.score for doc in found.ranking[qid] if not doc.missing}
            least = min(known.values(), default=0.0)
            rows.setdefault(qid, []).append([known.get(hit.docid, least) for hit in hits])
    return {qid: np.array(own, dtype=np.float64) for qid, own in rows.items()}


def _with_share(shares: Floats, member: int, share: float) -> Floats:
    """Set one member's share; the others keep their proportions (equal shares if all of theirs were 0)."""
    others = np.delete(shares, member)
    others = others / others.sum() if others.any() else np.full(len(others), 1 / len(others))
    return np.insert(others * (1 - share), member, share)
