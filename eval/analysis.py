"""What rankings say beside their means: depth curves, slices, and the queries on which systems differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean

import numpy as np

from mixlm_rerank.data.measures import evaluate
from mixlm_rerank.eval.results import Example, Shown, Slice
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["depth_curve", "examples", "slices"]

DEPTHS = (10, 20, 50, 100, 200, 500, 1000)
PARTS = 3
EXAMPLES = 3  # wins, and as many losses, of each system
SHOWN = 3

Ranking = Mapping[str, Sequence[ScoredDoc]]
Candidates = Mapping[str, Sequence[Candidate]]


def depth_curve(
    ranking: Ranking, candidates: Candidates, qrels: Mapping[str, Mapping[str, int]], measure: str, depth: int
) -> dict[int, float]:
    """The measure when only the first d candidates had been reranked, and were all that is returned.

    Exact for pointwise systems, whose scores do not depend on the other candidates.
    """
    curve = {}
    for cut in sorted({*(d for d in DEPTHS if d < depth), depth}):
        kept = {qid: {hit.docid for hit in hits[:cut]} for qid, hits in candidates.items()}
        run = {qid: [doc for doc in docs if doc.docid in kept[qid]] for qid, docs in ranking.items()}
        curve[cut] = evaluate(qrels, run, [measure])[measure]
    return curve


def slices(of: str, sizes: Mapping[str, int], values: Mapping[str, float]) -> list[Slice]:
    """Means over thirds of the queries by some number of words (of the query, of its relevant documents).

    >>> slices("query length", {"a": 1, "b": 2, "c": 9}, {"a": 0.0, "b": 1.0, "c": 0.5})[0]
    Slice(of='query length', label='1 words', queries=1, value=0.0)
    """
    qids = sorted((qid for qid in values if qid in sizes), key=lambda qid: sizes[qid])
    if len(qids) < PARTS:
        return []
    edges = np.quantile([sizes[qid] for qid in qids], np.arange(1, PARTS) / PARTS, method="lower")
    found = []
    for _, own in groupby(qids, lambda qid: int(np.searchsorted(edges, sizes[qid]))):
        part = list(own)
        low, high = sizes[part[0]], sizes[part[-1]]
        label = f"{low} words" if low == high else f"{low} to {high} words"
        found.append(Slice(of, label, len(part), fmean(values[qid] for qid in part)))
    return found


def examples(
    system: str,
    rankings: tuple[Ranking, Ranking],
    values: tuple[Mapping[str, float], Mapping[str, float]],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    texts: Mapping[str, str],
) -> list[Example]:
    """The largest wins and losses of a system (first of each pair) against the baseline (second)."""
    value, baseline_value = values
    by_difference = sorted(value, key=lambda qid: baseline_value[qid] - value[qid])
    wins = [qid for qid in by_difference[:EXAMPLES] if value[qid] > baseline_value[qid]]
    losses = [qid for qid in reversed(by_difference[-EXAMPLES:]) if value[qid] < baseline_value[qid]]

    def shown(docs: Sequence[ScoredDoc], qid: str) -> list[Shown]:
        return [Shown(doc.docid, qrels[qid].get(doc.docid), texts.get(doc.docid, "")[:600]) for doc in docs[:SHOWN]]

    return [
        Example(
            qid, queries[qid], system, value[qid], baseline_value[qid], *(shown(r.get(qid, []), qid) for r in rankings)
        )
        for qid in [*wins, *losses]
    ]
