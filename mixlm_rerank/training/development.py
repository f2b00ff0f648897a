"""Development values during training: nDCG@10 of development queries at several token budgets.

Without judgments, the teacher's order replaces them. At the end: whether the model came closer to its teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlm_rerank import numbers
from mixlm_rerank.data.measures import Fidelity, evaluate
from mixlm_rerank.index import TokenStore
from mixlm_rerank.model import MixLM
from mixlm_rerank.ranking import ranked
from mixlm_rerank.scoring import BiEncoderScorer, Scorer, SharedPrefixScorer
from mixlm_rerank.systems.ranked import Candidates
from mixlm_rerank.training.pools import Pool
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["DevelopmentSet", "as_taught", "development_values", "verdict", "watch"]

QUERIES_AT_ONCE = 16
FEW = 20  # queries: the standard error of a mean overlap is then about .04
GRADED = 10  # number of the teacher's top documents with a grade; the first has the highest


@dataclass(frozen=True)
class DevelopmentSet:
    """Judged queries with their candidates, to choose checkpoints by; never those of a test."""

    name: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    candidates: Candidates
    vectors: TokenStore | None = None  # index of the documents, if they are the user's own vectors


def as_taught(
    pools: Sequence[Pool],
    texts: Mapping[str, str],
    scores: NDArray[np.float32],
    titles: Mapping[str, str] = {},
    vectors: TokenStore | None = None,
) -> DevelopmentSet:
    """A development set judged only by a teacher's scores, float32 [pools or more, candidates]."""
    qrels, hits = {}, {}
    for pool, own in zip(pools, scores[: len(pools)].tolist(), strict=True):
        order = sorted(range(len(pool.docids)), key=lambda place: -own[place])
        qrels[pool.qid] = {pool.docids[place]: GRADED - rank for rank, place in enumerate(order[:GRADED])}
        hits[pool.qid] = [Candidate(docid, 0.0) for docid in pool.docids]
    wanted = {docid: texts[docid] for pool in pools for docid in pool.docids}
    candidates = Candidates("teacher", max(map(len, hits.values())), hits, wanted, titles=titles)
    return DevelopmentSet("teacher", {pool.qid: pool.query for pool in pools}, qrels, candidates, vectors)


def watch(sets: Sequence[DevelopmentSet], budgets: Sequence[int]) -> dict[str, Any]:
    """Arguments of :func:`train_joint` that keep the model with the best mean at the largest budget; no sets: none."""
    if not sets:
        return {}
    measured = partial(development_values, sets=sets, budgets=sorted(set(budgets)))
    return {"development": measured, "choose_by": f"k={max(budgets)}"}


def development_values(
    model: MixLM, sets: Sequence[DevelopmentSet], budgets: Sequence[int], measure: str = "nDCG@10"
) -> dict[str, float]:
    """``"msmarco dl21 k=4"`` -> value, for every set, at every budget, and for the bi-encoder inside (``cosine``).

    ``"k=4"`` without a name: the mean over sets. The model keeps its mode (training or not).
    """
    values: dict[str, list[float]] = {}
    found: dict[str, float] = {}
    for one in sets:
        docids = list(one.candidates.texts)
        if one.vectors is not None:
            tokens = one.vectors.fetch(docids).tokens
        else:
            tokens = model.encode([one.candidates.texts[docid] for docid in docids])
        titles = model.ranker.titles([one.candidates.titles.get(docid, "") for docid in docids])
        rows = {docid: row for row, docid in enumerate(docids)}
        ways: dict[str, tuple[Scorer, int]] = {f"k={k}": (SharedPrefixScorer(model), k) for k in budgets}
        if one.vectors is None:
            ways["cosine"] = (BiEncoderScorer(model), 1)
        for way, (scorer, budget) in ways.items():
            ranking = _ranking(one, scorer, tokens[:, -budget:], titles, rows)
            value = evaluate(one.qrels, ranking, [measure])[measure]
            found[f"{one.name} {way}"] = value
            values.setdefault(way, []).append(value)
    return found | {way: fmean(of_sets) for way, of_sets in values.items()}


def _ranking(
    one: DevelopmentSet, scorer: Scorer, tokens: NDArray[np.float32], titles: Tensor, rows: Mapping[str, int]
) -> dict[str, list[ScoredDoc]]:
    ranking, hits_of = {}, one.candidates.of_query
    for start in range(0, len(hits_of), QUERIES_AT_ONCE):
        qids = list(hits_of)[start : start + QUERIES_AT_ONCE]
        places = [[rows[hit.docid] for hit in hits_of[qid]] for qid in qids]
        own, read = [torch.from_numpy(tokens[at]) for at in places], [titles[at] for at in places]
        found = scorer.score_batch([one.queries[qid] for qid in qids], own, read if titles.shape[1] else None)
        for qid, scores in zip(qids, found, strict=True):
            ranking[qid] = ranked(hits_of[qid], np.ones(len(hits_of[qid]), dtype=bool), scores.double().numpy())
    return ranking


def verdict(found: Mapping[str, Fidelity]) -> str:
    """Whether the fitted model is closer to its teacher than the start was, by mean rank-biased overlap per budget.

    ``found``: as :func:`distill` returns it.

    >>> verdict({"start k=1": Fidelity(0.5, 0.5, 0.5, 0.5, 40), "k=1": Fidelity(0.6, 0.5, 0.5, 0.5, 40)})
    'better than the start at every token budget (k=1 +.100), on 40 held-out queries'
    """
    values = {name: value.rank_biased_overlap for name, value in found.items()}
    gains = {name: value - values[f"start {name}"] for name, value in values.items() if f"start {name}" in values}
    by = {better: [name for name, gain in gains.items() if (gain > 0) == better] for better in (True, False)}
    told = ", ".join(f"{name} {numbers.difference(gain)}" for name, gain in gains.items())
    if not by[False]:
        where = f"better than the start at every token budget ({told})"
    elif by[True]:
        where = f"better than the start at {', '.join(by[True])}, not at {', '.join(by[False])} ({told})"
    else:
        where = f"not better than the start at any token budget ({told})"
    count = next(iter(found.values())).queries
    if count < FEW:
        return f"{where}, on {count} held-out queries: too few to tell"
    advice = "; try more queries (--queries, or options.queries in --config) or rounds" if by[False] else ""
    return f"{where}, on {count:,} held-out queries{advice}"
