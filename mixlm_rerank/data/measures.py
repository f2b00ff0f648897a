"""Measures of a run against judgments, by ir_measures: over all judged queries, ties broken as in trec_eval."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from subprocess import SubprocessError
from typing import Any

from mixlm_rerank.arguments import check_strings
from mixlm_rerank.data.lines import some_ids
from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["DEFAULT_MEASURES", "default_measures", "evaluate", "evaluate_queries", "measure"]

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
    judged = {qid: _survivable(grades) for qid, grades in qrels.items()}
    scores = {qid: {doc.docid: _order(doc) for doc in docs} for qid, docs in run.items()}
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


def _survivable(grades: Mapping[str, int]) -> Mapping[str, int]:
    """Where every grade is negative, zeros: the same values, but trec_eval, which counts grades up to the highest one,
    would end the process.
    """
    return grades if max(grades.values(), default=0) >= 0 else dict.fromkeys(grades, 0)


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


def _order(doc: Candidate | ScoredDoc) -> float:
    """What trec_eval sorts by. It keeps float32 and breaks ties by docid; our own rankings have a rank, and no ties."""
    return float(-doc.rank) if isinstance(doc, ScoredDoc) else doc.score
