"""How faithfully does one system give the ranking of another, a fast one that of its teacher? No judgments needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Fidelity", "fidelity", "kendall_tau", "overlap", "rank_biased_overlap"]

Ranked = Sequence[Candidate | ScoredDoc]


@dataclass(frozen=True)
class Fidelity:
    """Means over queries; 1 is the same ranking throughout.

    Attributes:
        rank_biased_overlap: agreement of the prefixes of both rankings, the top counting most (p = .9: the first ten
            carry 86% of the weight).
        overlap: share of the teacher's first ten that are among the first ten.
        kendall_tau: of the order of the documents that both rank, in [-1, 1].
        same_first: share of queries with the same first document.
        queries: how many.
    """

    rank_biased_overlap: float
    overlap: float
    kendall_tau: float
    same_first: float
    queries: int = 0


def fidelity(
    run: Mapping[str, Ranked], teacher: Mapping[str, Ranked], *, depth: int = 10, persistence: float = 0.9
) -> Fidelity:
    """Fidelity of ``run`` to ``teacher``, both in the order of their lists.

    Over the teacher's queries that have candidates; one that ``run`` lacks counts 0. Raises InputError if there are
    none, MissingDependency if scipy is not installed.
    """
    qids = [qid for qid, docs in teacher.items() if docs]
    if not qids:
        raise InputError("the teacher's run holds no candidates")
    sums = np.zeros(4)
    for qid in qids:
        ours, theirs = ([doc.docid for doc in docs] for docs in (run.get(qid, ()), teacher[qid]))
        if ours:
            biased, shared = rank_biased_overlap(ours, theirs, persistence), overlap(ours, theirs, depth)
            sums += biased, shared, kendall_tau(ours, theirs), ours[0] == theirs[0]
    biased, shared, tau, first = (sums / len(qids)).tolist()
    return Fidelity(biased, shared, tau, first, len(qids))


def rank_biased_overlap(a: Sequence[str], b: Sequence[str], persistence: float = 0.9) -> float:
    """RBO_ext of Webber, Moffat and Zobel (2010, eq. 32): agreement at each depth, extrapolated past the lists' end.

    >>> rank_biased_overlap(["a", "b"], ["a", "b"])
    1.0
    >>> round(rank_biased_overlap(["a", "b"], ["b", "a"], 0.5), 6)
    0.5
    """
    short, long = sorted((a, b), key=len)
    places = {docid: depth for depth, docid in enumerate(short, 1)}
    both = [max(depth, places[docid]) for depth, docid in enumerate(long, 1) if docid in places]
    common = np.bincount(both, minlength=len(long) + 1)[1:].cumsum()  # X_d: documents of both lists down to depth d
    at_end_of_short = common[len(short) - 1]
    depths = np.arange(1, len(long) + 1)
    # what the short list would share if it went on as it began
    assumed = at_end_of_short * np.maximum(depths - len(short), 0) / len(short)
    weighted = ((common + assumed) / depths * persistence**depths).sum()
    tail = (common[-1] - at_end_of_short) / len(long) + at_end_of_short / len(short)
    return float((1 - persistence) / persistence * weighted + tail * persistence ** len(long))


def overlap(a: Sequence[str], b: Sequence[str], depth: int = 10) -> float:
    """Share of the first ``depth`` of ``b`` that ``a`` has among its first ``depth``."""
    size = min(depth, len(b))
    return len(set(a[:depth]) & set(b[:depth])) / size if size else 0.0


def kendall_tau(a: Sequence[str], b: Sequence[str]) -> float:
    """(concordant - discordant) / pairs, over the documents that both rank; 1 for fewer than two of them."""
    ranks = {docid: rank for rank, docid in enumerate(b)}
    common = [ranks[docid] for docid in a if docid in ranks]
    if len(common) < 2:
        return 1.0
    with optional_import("the fidelity of a ranking needs scipy", "eval"):
        from scipy.stats import kendalltau
    return float(kendalltau(range(len(common)), common).statistic)
