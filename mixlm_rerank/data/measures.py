"""What a ranking is worth: against judgments (by ir_measures, ties broken as in trec_eval), or against another ranking.

The latter needs no judgments: how faithfully does a fast system give the ranking of its teacher?
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
    """With the recall of as many candidates as were ranked."""
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
    """Both at once: the means, and the values of every query."""
    with optional_import("measures need ir_measures", "eval"):
        ir_measures = importlib.import_module("ir_measures")
    if not any(qid in qrels for qid in run):
        raise InputError(
            f"no query of the run is judged (run: {some_ids(run)}; judgments: {some_ids(qrels)}): do they belong "
            "together?"
        )
    check_strings("measures", measures)
    parsed = {name: _parse(ir_measures, name) for name in measures}
    # where every grade is negative, zeros: the same values, but trec_eval, which counts grades up to the highest one,
    # would end the process
    survivable = {qid: max(grades.values(), default=0) >= 0 for qid, grades in qrels.items()}
    judged = {qid: own if survivable[qid] else dict.fromkeys(own, 0) for qid, own in qrels.items()}
    # ties are broken here: some providers do it by rising docid, trec_eval by falling
    scores = {
        qid: {doc.docid: float(-place) for place, doc in enumerate(sorted(docs, key=_worst_first, reverse=True))}
        for qid, docs in run.items()
    }
    try:
        means, every = ir_measures.calc(list(parsed.values()), judged, scores)
    except (ValueError, KeyError, TypeError, ArithmeticError, SubprocessError) as error:  # each provider's own
        shown = ", ".join(parsed)
        raise InputError(f"ir_measures cannot compute {shown} ({type(error).__name__}: {error})") from None
    values: dict[Any, dict[str, float]] = {parsed[name]: dict.fromkeys(qrels, 0.0) for name in parsed}
    for metric in every:
        values[metric.measure][metric.query_id] = float(metric.value)
    # one measure may be asked for under two names
    return {n: float(means[m]) for n, m in parsed.items()}, {n: dict(values[m]) for n, m in parsed.items()}


def _worst_first(doc: Candidate | ScoredDoc) -> tuple[float, str]:
    """Our own rankings have a rank, and no ties; trec_eval keeps scores in float32."""
    return (float(-doc.rank), "") if isinstance(doc, ScoredDoc) else (float(np.float32(doc.score)), doc.docid)


def oracle(
    run: Mapping[str, Sequence[Candidate]], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, list[ScoredDoc]]:
    """Each query's candidates by falling grade (unjudged: 0), equal grades as they stand.

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
    """How faithfully one system gives the ranking of another: means over queries. 1 is the same ranking throughout.

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
    """Names by trec_eval (ndcg_cut_10, map) and in other letters (ndcg@10), as ir_measures writes them."""
    by_letters = {known.lower(): known for known in reversed(list(ir_measures.measures.registry))}
    try:
        meant = ir_measures.parse_trec_measure(name)
    except ValueError:
        word, at, rest = name.partition("@")
        meant = [f"{by_letters[word.lower()]}{at}{rest}"] if word.lower() in by_letters else []
    return f"write {' or '.join(map(str, meant))}" if meant else None
