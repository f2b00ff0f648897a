"""How much of the first stage's score to mix in: the weight, found on development queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mixlm_rerank.eval.measures import evaluate
from mixlm_rerank.eval.ranked import Candidates
from mixlm_rerank.eval.systems.interpolated import mixed
from mixlm_rerank.types import ScoredDoc

__all__ = ["WEIGHTS", "Development", "values_by_weight"]

WEIGHTS = tuple(step / 20 for step in range(21))


@dataclass(frozen=True)
class Development:
    """One system's rankings of the development queries of one collection."""

    candidates: Candidates
    ranking: Mapping[str, Sequence[ScoredDoc]]
    qrels: Mapping[str, Mapping[str, int]]


def values_by_weight(collections: Sequence[Development], measure: str) -> dict[float, float]:
    """weight -> mean of the measure over collections, each counting alike. Take the weight of the highest value."""
    return {
        weight: fmean(evaluate(found.qrels, _mixed(found, weight), [measure])[measure] for found in collections)
        for weight in WEIGHTS
    }


def _mixed(found: Development, weight: float) -> dict[str, list[ScoredDoc]]:
    return {qid: mixed(hits, found.ranking[qid], weight) for qid, hits in found.candidates.of_query.items()}
