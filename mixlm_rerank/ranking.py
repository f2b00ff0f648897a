"""From scores to a ranking: order, ties, interpolation, missing documents, verified documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .types import Candidate, ScoredDoc

__all__ = ["UNSCORED", "Weight", "best_passages", "check_weight", "interpolated", "merged", "parsed_weight"]
__all__ += ["probability", "ranked", "unranked", "verified"]

# Placeholder scores of documents that were not scored lie below this: no log-odds come near it; its sigmoid is 0.
UNSCORED = -1e4
RRF_CONSTANT = 60  # as in the paper

Weight = float | Literal["rrf"]


def ranked(candidates: Sequence[Candidate], found: NDArray[np.bool_], scores: NDArray[np.float64]) -> list[ScoredDoc]:
    """All candidates, best first: by (-score, first-stage rank), those without a score (not ``found``) last.

    ``scores`` [m] belong to the m found candidates. The missing ones get -10,001, -10,002 ...
    """
    known = list(zip(candidates, found.tolist(), strict=True))
    scored = list(zip((hit for hit, is_found in known if is_found), scores.tolist(), strict=True))
    scored.sort(key=lambda pair: -pair[1])  # stable: ties keep their first-stage order
    floor = min(UNSCORED, scored[-1][1]) if scored else UNSCORED
    scored += [(hit, floor - below) for below, hit in enumerate((hit for hit, is_found in known if not is_found), 1)]
    return [
        ScoredDoc(hit.docid, score, rank, hit.score, missing=rank > len(scores), text=hit.text)
        for rank, (hit, score) in enumerate(scored, 1)
    ]


def best_passages(scores: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """MaxP: rows of each document's best passage. Scores [m], number of passages per document [n] -> rows [n].

    >>> best_passages(np.array([1.0, 3.0, 2.0, 0.0, 5.0]), np.array([3, 2])).tolist()
    [1, 4]
    """
    order = np.lexsort((-scores, np.repeat(np.arange(len(counts)), counts)))
    best: NDArray[np.int64] = order[counts.cumsum() - counts]
    return best


def merged(docs: Sequence[ScoredDoc]) -> list[ScoredDoc]:
    """One ranking out of the concatenated rankings of consecutive parts of a query's candidates."""
    candidates = [Candidate(doc.docid, doc.first_stage_score, doc.text) for doc in docs]
    found = np.array([not doc.missing for doc in docs], dtype=bool)
    return ranked(candidates, found, np.array([doc.score for doc in docs if not doc.missing]))


def unranked(candidates: Sequence[Candidate]) -> list[ScoredDoc]:
    """Candidates in their given order, as ranked documents."""
    return [ScoredDoc(hit.docid, hit.score, rank, hit.score) for rank, hit in enumerate(candidates, 1)]


def probability(log_odds: float, *, missing: bool = False) -> float:
    """The sigmoid of log-odds; 0 for a missing document. Before calibration an unrelated document can be above .5.

    >>> probability(0.0), probability(-1000.0), probability(5.0, missing=True)
    (0.5, 0.0, 0.0)
    """
    if missing:
        return 0.0
    odds = math.exp(-abs(log_odds))  # at most 1: never an overflow
    return 1 / (1 + odds) if log_odds >= 0 else odds / (1 + odds)


def parsed_weight(text: str) -> Weight | None:
    """A weight from its text; None for anything but a number or ``rrf``."""
    try:
        return "rrf" if text == "rrf" else float(text)
    except ValueError:
        return None


def check_weight(weight: object) -> None:
    """Raises InputError for an invalid weight of the first stage."""
    if weight == "rrf":
        return
    if not isinstance(weight, Real) or isinstance(weight, bool):
        raise InputError(f'first_stage_weight must be a number between 0 and 1, or "rrf", not {weight!r}')
    if not 0 <= float(weight) <= 1:
        raise InputError(f'first_stage_weight must lie between 0 and 1, not {weight}; or be "rrf"')


def interpolated(scores: NDArray[np.float64], first_stage: NDArray[np.float64], weight: Weight) -> NDArray[np.float64]:
    """``(1 - weight) * scores + weight * first_stage``, each scaled to [0, 1] within the query. [n], [n] -> [n].

    ``"rrf"``: reciprocal rank fusion instead (Cormack et al., SIGIR 2009), the sum of ``1 / (60 + rank)`` in both.
    Ranks are among these documents; of equal scores the first ranks higher.
    """
    if weight == "rrf":
        return _reciprocal_ranks(scores) + _reciprocal_ranks(first_stage)
    return (1 - weight) * _scaled(scores) + weight * _scaled(first_stage)


def verified(docs: Sequence[ScoredDoc], scores: Mapping[ScoredDoc, float]) -> list[ScoredDoc]:
    """The documents in ``scores`` on top, in the order of these new scores; the others below, in their order.

    Scores keep falling with rank: if the best of the others would score too high, all others are shifted down.
    """
    top = sorted((doc for doc in docs if doc in scores), key=lambda doc: -scores[doc])
    rest = [doc for doc in docs if doc not in scores]
    shift = max(0.0, rest[0].score - scores[top[-1]]) if rest and top else 0.0
    moved = [replace(doc, score=scores[doc]) for doc in top]
    moved += [replace(doc, score=doc.score - shift) for doc in rest]
    return [replace(doc, rank=rank) for rank, doc in enumerate(moved, 1)]


def _reciprocal_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return 1 / (RRF_CONSTANT + ranks)


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Min-max scaling; all equal values become 0."""
    if not len(values):
        return values
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
