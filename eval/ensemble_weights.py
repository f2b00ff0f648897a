"""Weights of an ensemble's members, found on development queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.measures import evaluate
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.weights import Development
from mixlm_rerank.types import Candidate

__all__ = ["fit_ensemble"]

SHARES = tuple(step / 20 for step in range(21))
SPREAD = 9.0  # log-odds between the best and the worst candidate of a query, on average: how sure a teacher is
GAIN = 1e-4  # less is no gain

Scores = Mapping[str, NDArray[np.float64]]  # qid -> of its candidates


def fit_ensemble(members: Mapping[str, Sequence[Development]], measure: str) -> tuple[dict[str, float], float]:
    """member -> weight, and the measure's value: its mean over collections, each counting alike.

    Coordinate ascent from equal shares: in turn each member's share is set to the best of 0, .05 ... 1, while the
    others keep their proportions, until nothing is gained.

    ``members``: member -> its rankings of the same candidates of each collection.

    Raises InputError if there are no candidates.
    """
    scores = [[_scores(found) for found in own] for own in members.values()]
    ranges = [[np.ptp(own) for scored in each for own in scored.values() if len(own)] for each in scores]
    if not all(ranges):
        raise InputError("the first stage finds no candidates for any of these queries: there is nothing to fit")
    units = np.array([fmean(own) for own in ranges])
    collections = next(iter(members.values()))

    def value(shares: NDArray[np.float64]) -> float:
        weights = np.divide(shares, units, where=units > 0, out=np.zeros_like(shares))
        return fmean(
            evaluate(found.qrels, _summed(found, [own[place] for own in scores], weights), [measure])[measure]
            for place, found in enumerate(collections)
        )

    shares = np.full(len(scores), 1 / len(scores))
    best = value(shares)
    gained = len(scores) > 1
    while gained:
        before = best
        for member in range(len(scores)):
            for tried in (_with_share(shares, member, share) for share in SHARES):
                found = value(tried)
                if found > best + GAIN:
                    shares, best = tried, found
        gained = best > before
    weights = np.divide(SPREAD * shares, units, where=units > 0, out=np.zeros_like(shares))
    return dict(zip(members, weights.round(3).tolist(), strict=True)), best


def _scores(found: Development) -> Scores:
    """In the order of the candidates. Those that a member could not score have its least."""
    scores = {}
    for qid, hits in found.candidates.of_query.items():
        known = {doc.docid: doc.score for doc in found.ranking[qid] if not doc.missing}
        least = min(known.values(), default=0.0)
        scores[qid] = np.array([known.get(hit.docid, least) for hit in hits])
    return scores


def _summed(found: Development, members: Sequence[Scores], weights: NDArray[np.float64]) -> dict[str, list[Candidate]]:
    run = {}
    for qid, hits in found.candidates.of_query.items():
        sums = np.sum([weight * own[qid] for weight, own in zip(weights, members, strict=True)], axis=0)
        run[qid] = [Candidate(hit.docid, float(score)) for hit, score in zip(hits, sums, strict=True)]
    return run


def _with_share(shares: NDArray[np.float64], member: int, share: float) -> NDArray[np.float64]:
    """The same with ``share`` for one, the others in their proportions (alike, where they had nothing)."""
    others = shares.copy()
    others[member] = 0.0
    if not others.any():
        others[:] = 1.0
        others[member] = 0.0
    others *= (1 - share) / max(others.sum(), 1e-12)
    others[member] = share
    return others
