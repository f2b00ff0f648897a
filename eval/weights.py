"""How much of the first stage's score to mix in: the weight, found on development queries, and the harm it avoids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.measures import evaluate_queries
from mixlm_rerank.systems.interpolated import mixed
from mixlm_rerank.systems.ranked import Candidates
from mixlm_rerank.types import ScoredDoc

__all__ = ["WEIGHTS", "Development", "Fit", "fit_weight"]

WEIGHTS = tuple(step / 20 for step in range(21))
FOLDS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Development:
    """One system's rankings of the development queries of one collection."""

    candidates: Candidates
    ranking: Mapping[str, Sequence[ScoredDoc]]
    qrels: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Fit:
    """What each weight brings.

    Attributes:
        measure: what the weight is to make highest.
        values: weight -> mean of the measure over collections, each counting alike.
        cross_validated: the same, where each query is mixed at the weight that is best for the other four fifths of
            them; None for fewer than ten queries.
        worse: weight -> on how many queries the mixture is worse than the first stage.
        queries: how many there are.
    """

    measure: str
    values: Mapping[float, float]
    cross_validated: float | None
    worse: Mapping[float, int]
    queries: int

    @property
    def weight(self) -> float:
        """The best one."""
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
    """All weights, measured on the same rankings."""
    tables = [_by_weight(found, measure) for found in collections]
    queries = sum(table.shape[1] for table in tables)
    worse = np.sum([(table < table[-1]).sum(axis=1) for table in tables], axis=0)  # the last row: the first stage alone
    return Fit(
        measure,
        dict(zip(WEIGHTS, _means(tables).tolist(), strict=True)),
        _cross_validated(tables) if queries >= 2 * FOLDS else None,
        dict(zip(WEIGHTS, worse.tolist(), strict=True)),
        queries,
    )


def _by_weight(found: Development, measure: str) -> Floats:
    """[weights, queries]"""
    rows = []
    for weight in WEIGHTS:
        run = {qid: mixed(hits, found.ranking[qid], weight) for qid, hits in found.candidates.of_query.items()}
        rows.append(list(evaluate_queries(found.qrels, run, [measure])[measure].values()))
    return np.array(rows)


def _means(tables: Sequence[Floats]) -> Floats:
    """Over queries, then over collections. [weights]"""
    means: Floats = np.mean([table.mean(axis=1) for table in tables if table.shape[1]], axis=0)
    return means


def _cross_validated(tables: Sequence[Floats]) -> float:
    draw = np.random.default_rng(0)
    folds = [draw.permutation(table.shape[1]) % FOLDS for table in tables]
    held = [np.empty((1, table.shape[1])) for table in tables]
    for fold in range(FOLDS):
        best = _means([table[:, own != fold] for table, own in zip(tables, folds, strict=True)]).argmax()
        for table, own, values in zip(tables, folds, held, strict=True):
            values[0, own == fold] = table[best, own == fold]
    return float(_means(held)[0])
