"""Calibrate log-odds as probabilities, and measure whether a threshold separates relevant documents from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.eval.report.svg import name_axes, new_axes
from mixlm_rerank.eval.significance import bootstrap
from mixlm_rerank.model import MixLM
from mixlm_rerank.ranking import probability
from mixlm_rerank.types import ScoredDoc

with optional_import("calibration needs scikit-learn", "eval"):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import precision_recall_curve, precision_recall_fscore_support
    from sklearn.model_selection import GroupKFold

__all__ = ["Calibration", "Kept", "Pairs", "calibrate", "calibrated", "draw", "pairs_of"]

FOLDS = 5
OF_RELEVANT: Any = {"average": "binary", "zero_division": 0}
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Scored query-document pairs, as arrays of equal length."""

    scores: Floats  # log-odds
    targets: Floats  # probability that the document is relevant: 0 or 1, or a teacher's probability
    queries: Ints  # number of the query
    ranks: Ints  # rank of the document for its query, from 1

    @property
    def relevant(self) -> Bools:
        return self.targets >= 0.5


@dataclass(frozen=True)
class Kept:
    """Precision, recall (of the relevant candidates) and F1 of the documents that one cutoff rule keeps."""

    name: str
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Calibration:
    """Fitted Platt scaling (calibrated log-odds = slope * log-odds + intercept), and how well cutoffs do on queries
    that they were not fitted on.
    """

    slope: float
    intercept: float
    threshold: float  # in calibrated log-odds; keeping the documents that reach it gives the best F1
    kept: tuple[Kept, ...]  # no cutoff, the best rank cutoff, the best score cutoff; cross-validated by query
    gain: tuple[float, float, float]  # F1 of the score cutoff minus F1 of the rank cutoff, and its 95% interval
    above_half: tuple[float, float]  # share of irrelevant documents with a probability above .5, before and after
    pairs: int
    queries: int
    relevant: int

    @property
    def separates(self) -> bool:
        """Whether a score threshold is significantly better than a rank cutoff."""
        return self.gain[1] > 0

    def __str__(self) -> str:
        difference, low, high = map(numbers.difference, self.gain)
        threshold = f"log-odds of {self.threshold:.2f} (probability {probability(self.threshold):.3f})"
        verdict = "no threshold separates relevant documents from others better than a cut by rank does"
        if self.separates:
            verdict = f"{threshold} separate relevant documents from others better than a cut by rank"
        lines = [
            f"fitted on {self.pairs:,} documents of {self.queries:,} queries, {self.relevant:,} of them relevant: "
            f"log-odds = {self.slope:.3g} * log-odds before {self.intercept:+.3g}",
            "irrelevant documents with a probability above .5: {:.0%} before, {:.0%} now".format(*self.above_half),
            f"  {f'kept ({FOLDS}-fold, by query)':<34} precision  recall      F1",
            *(f"  {own.name:<34}{own.precision:>10.3f}{own.recall:>8.3f}{own.f1:>8.3f}" for own in self.kept),
            f"{verdict} (F1 {difference}, 95% interval {low} to {high})",
        ]
        return "\n".join(lines)


def pairs_of(ranked: Mapping[str, Sequence[ScoredDoc]], targets: Mapping[str, Mapping[str, float]]) -> Pairs:
    """Scored documents of the queries in ``targets`` (qid -> docid -> probability of relevance, 0 if it has none).

    Raises InputError if there are too few queries, or if all documents or none of them are relevant.
    """
    rows = [
        (doc.score, targets[qid].get(doc.docid, 0.0), number, doc.rank)
        for number, qid in enumerate(qid for qid in ranked if qid in targets)
        for doc in ranked[qid]
        if not doc.missing
    ]
    scores, probabilities, queries, ranks = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    pairs = Pairs(scores, probabilities, queries.astype(np.int64), ranks.astype(np.int64))
    count = len(np.unique(pairs.queries))
    if count < 2 * FOLDS or not 0 < pairs.relevant.sum() < len(rows):
        raise InputError(
            f"{count} judged queries with {pairs.relevant.sum():,} relevant documents among {len(rows):,} scored ones: "
            f"calibration needs {2 * FOLDS} queries, relevant documents and others"
        )
    return pairs


def calibrate(pairs: Pairs) -> Calibration:
    """Fit slope and intercept, and measure the gain of a threshold by cross-validation over queries.

    Raises InputError if higher scores do not mean more relevant documents.
    """
    # logistic regression on soft labels: each pair occurs once per label, weighted by its target
    features, labels = np.tile(pairs.scores, 2)[:, None], np.repeat([1, 0], len(pairs.scores))
    fitted = LogisticRegression(C=np.inf).fit(features, labels, np.concatenate([pairs.targets, 1 - pairs.targets]))
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if not slope > 0:
        raise InputError("higher scores do not go with relevance here: nothing can be calibrated")
    relevant = pairs.relevant
    others = pairs.scores[~relevant]
    cut, threshold = -_best_cut(-pairs.ranks, relevant), slope * _best_cut(pairs.scores, relevant) + intercept
    ways = {
        "everything": np.ones_like(relevant),
        f"the first {cut:.0f} of each query": _cross_validated(pairs, -pairs.ranks),
        f"log-odds of at least {threshold:.2f}": _cross_validated(pairs, pairs.scores),
    }
    _, by_rank, by_score = ways.values()
    measured = [precision_recall_fscore_support(relevant, kept, **OF_RELEVANT) for kept in ways.values()]
    return Calibration(
        slope=slope,
        intercept=intercept,
        threshold=float(threshold),
        kept=tuple(Kept(name, *map(float, found[:3])) for name, found in zip(ways, measured, strict=True)),
        gain=_gain(pairs, by_score, by_rank),
        above_half=(float((others > 0).mean()), float((slope * others + intercept > 0).mean())),
        pairs=len(relevant),
        queries=len(np.unique(pairs.queries)),
        relevant=int(relevant.sum()),
    )


def calibrated(model: MixLM, slope: float, intercept: float) -> None:
    """Rescale the model's log-odds in place: ``slope * log-odds + intercept``. Keeps rankings and fingerprint."""
    readout = model.readout
    weights = readout.score.weight, readout.score.bias, readout.cosine_weight, readout.late_weight
    with torch.no_grad():
        for weight in filter(torch.is_tensor, weights):
            weight.mul_(slope)
        readout.score.bias.add_(intercept)


def draw(pairs: Pairs, found: Calibration, path: Path) -> None:
    """Save a PNG: histograms of calibrated log-odds for relevant and other documents, and the threshold."""
    figure, axes = new_axes(504, 230)
    log_odds = found.slope * pairs.scores + found.intercept
    bins = np.linspace(log_odds.min(), log_odds.max(), 60).tolist()
    for name, own in (("relevant", pairs.relevant), ("others", ~pairs.relevant)):
        axes.hist(log_odds[own], bins, weights=np.full(own.sum(), 1 / own.sum()), alpha=0.6, label=name)
    axes.axvline(found.threshold, color="black", linewidth=1, label=f"best threshold, {found.threshold:.2f}")
    name_axes(axes, "calibrated log-odds", "share of its kind")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _best_cut(values: Floats | Ints, relevant: Bools) -> float:
    """The cutoff with the best F1: values at or above it are kept."""
    precision, recall, cuts = precision_recall_curve(relevant, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(cuts[f1[:-1].argmax()])


def _cross_validated(pairs: Pairs, values: Floats | Ints) -> Bools:
    """Mask of the pairs that are kept when each query's cutoff is chosen on the other folds. bool [pairs]"""
    kept = np.zeros(len(values), dtype=bool)
    for train, test in GroupKFold(FOLDS).split(values, groups=pairs.queries):
        kept[test] = values[test] >= _best_cut(values[train], pairs.relevant[train])
    return kept


def _gain(pairs: Pairs, kept: Bools, other: Bools) -> tuple[float, float, float]:
    """F1 of ``kept`` minus F1 of ``other``, and its 95% bootstrap interval over queries."""

    def gain(*counts: Any, axis: int = -1) -> Floats:
        hits, size, other_hits, other_size, relevant = (own.sum(axis=axis) for own in counts)
        found: Floats = 2 * hits / (size + relevant) - 2 * other_hits / (other_size + relevant)
        return found

    columns = kept & pairs.relevant, kept, other & pairs.relevant, other, pairs.relevant
    counts = [np.bincount(pairs.queries, own) for own in columns]
    low, high = bootstrap(counts, gain, paired=True)
    return float(gain(*counts)), low, high
