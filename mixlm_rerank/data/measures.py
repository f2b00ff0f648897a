"""Quality of a ranking, against judgments (by ir_measures, ties broken as in trec_eval) or against another ranking.

The latter needs no judgments: it measures how faithfully a fast system reproduces the ranking of its teacher.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import Any

import numpy as np

from mixlm_rerank.arguments import check_strings
from mixlm_rerank.data.lines import some_ids
from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["DEFAULT_MEASURES", "Fidelity", "default_measures", "evaluate", "evaluate_queries", "fidelity"]
__all__ += ["kendall_tau", "measure", "oracle", "overlap", "rank_biased_overlap"]

Ranked = Sequence[Candidate | ScoredDoc]


def default_measures(depth: int = 100) -> tuple[str, ...]:
    """The default measures for rankings of ``depth`` candidates: recall is measured at that depth."""
    return "nDCG@10", "RR@10", "AP", f"R@{depth}", "Judged@10"


DEFAULT_MEASURES = default_measures()


def evaluate(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Ranked], measures: Sequence[str] = DEFAULT_MEASURES
) -> dict[str, float]:
    """Mean of each measure over all queries in ``qrels``; a query that the run lacks counts 0.

    Args:
        qrels: qid -> docid -> grade.
        run: qid -> documents: candidates in the order of their scores (ties as in trec_eval), or ranked documents.
        measures: names as ir_measures writes them, ``"nDCG@10"``, ``"AP(rel=2)"``.

    Raises:
        InputError: a measure that ir_measures does not know or cannot compute here; no query of the run is judged.
        MissingDependency: ir_measures is not installed.
    """
    return measure(qrels, run, measures)[0]


def evaluate_queries(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Ranked], measures: Sequence[str] = DEFAULT_MEASURES
) -> dict[str, dict[str, float]]:
    """measure -> qid -> value, for all queries in ``qrels``; otherwise as :func:`evaluate`."""
    return measure(qrels, run, measures)[1]


def measure(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Ranked], measures: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The means as in :func:`evaluate`, and the values of every query as in :func:`evaluate_queries`."""
    with optional_import("measures need ir_measures", "eval"):
        ir_measures = importlib.import_module("ir_measures")
    if not any(qid in qrels for qid in run):
        raise InputError(
            f"no query of the run is judged (run: {some_ids(run)}; judgments: {some_ids(qrels)}): do they belong "
            "together?"
        )
    check_strings("measures", measures)
    parsed = {name: _parse(ir_measures, name) for name in measures}
    # grades of a query that are all negative become 0: the values stay the same, but trec_eval, which counts grades up
    # to the highest one, would end the process
    survivable = {qid: max(grades.values(), default=0) >= 0 for qid, grades in qrels.items()}
    judged = {qid: own if survivable[qid] else dict.fromkeys(own, 0) for qid, own in qrels.items()}
    # ties are broken here: some providers break them by ascending docid, trec_eval by descending
    scores = {
        qid: {doc.docid: float(-place) for place, doc in enumerate(sorted(docs, key=_worst_first, reverse=True))}
        for qid, docs in run.items()
    }
    try:
        means, every = ir_measures.calc(list(parsed.values()), judged, scores)
    except (ValueError, KeyError, TypeError, ArithmeticError, SubprocessError) as error:  # each provider raises its own
        shown = ", ".join(parsed)
        raise InputError(f"ir_measures cannot compute {shown} ({type(error).__name__}: {error})") from None
    values: dict[Any, dict[str, float]] = {parsed[name]: dict.fromkeys(qrels, 0.0) for name in parsed}
    for metric in every:
        values[metric.measure][metric.query_id] = float(metric.value)
    # the same measure may be requested under two names
    return {n: float(means[m]) for n, m in parsed.items()}, {n: dict(values[m]) for n, m in parsed.items()}


def _worst_first(doc: Candidate | ScoredDoc) -> tuple[float, str]:
    """Sort key: the rank of a ranked document; score in float32, as trec_eval keeps it, and docid of a candidate."""
    return (float(-doc.rank), "") if isinstance(doc, ScoredDoc) else (float(np.float32(doc.score)), doc.docid)


def oracle(
    run: Mapping[str, Sequence[Candidate]], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, list[ScoredDoc]]:
    """Each query's candidates by descending grade (unjudged: 0), equal grades in their present order.

    Examples:
        >>> ranked = oracle({"q": [Candidate("a", 2.0), Candidate("b", 1.0)]}, {"q": {"b": 1}})
        >>> [doc.docid for doc in ranked["q"]]
        ['b', 'a']
    """
    ranked = {}
    for qid, hits in run.items():
        grades = qrels.get(qid, {})
        best = sorted(hits, key=lambda hit: -grades.get(hit.docid, 0))
        ranked[qid] = [ScoredDoc(hit.docid, -float(rank), rank, hit.score) for rank, hit in enumerate(best, 1)]
    return ranked


@dataclass(frozen=True)
class Fidelity:
    """How faithfully one system reproduces the ranking of another, as means over queries. 1: identical rankings.

    Attributes:
        rank_biased_overlap: agreement of the prefixes of both rankings, the top counting most (p = .9: the first ten
            carry 86% of the weight).
        overlap: share of the teacher's first ten that are among the system's first ten.
        kendall_tau: Kendall's tau over the documents that both rank, in [-1, 1].
        same_first: share of queries with the same first document.
        queries: number of queries.
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

    Means are over the teacher's queries with candidates; a query that ``run`` lacks counts 0. Raises InputError if
    there are no such queries, MissingDependency if scipy is not installed.
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
    common = np.bincount(both, minlength=len(long) + 1)[1:].cumsum()  # X_d: documents in both lists down to depth d
    at_end_of_short = common[len(short) - 1]
    depths = np.arange(1, len(long) + 1)
    # what the short list would share if its agreement continued
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


def _parse(ir_measures: Any, name: str) -> Any:
    try:
        measure = ir_measures.parse_measure(name)
    except (ValueError, NameError, KeyError, SyntaxError) as error:
        raise InputError(f"unknown measure {name!r} ({_meant(ir_measures, name) or error})") from None
    try:
        measure.validate_params()
    except AssertionError:
        takes = [f"{key} (required)" if info.required else key for key, info in measure.SUPPORTED_PARAMS.items()]
        raise InputError(
            f"the measure {name!r} has a wrong parameter or lacks one: it takes {', '.join(takes) or 'none'}"
        ) from None
    if measure.params.get("cutoff", 1) < 1:  # trec_eval would end the process
        raise InputError(f"the measure {name!r} looks at no document: the cutoff must be at least 1")
    return measure


def _meant(ir_measures: Any, name: str) -> str | None:
    """Hint how ir_measures writes a name of trec_eval (ndcg_cut_10, map) or one in the wrong case (ndcg@10)."""
    by_letters = {known.lower(): known for known in reversed(list(ir_measures.measures.registry))}
    try:
        meant = ir_measures.parse_trec_measure(name)
    except ValueError:
        word, at, rest = name.partition("@")
        meant = [f"{by_letters[word.lower()]}{at}{rest}"] if word.lower() in by_letters else []
    return f"write {' or '.join(map(str, meant))}" if meant else None
