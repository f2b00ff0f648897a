"""Measures of a run against judgments, by ir_measures: over all judged queries, ties broken as in trec_eval."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from mixlm_rerank.errors import InputError, MissingDependency
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["DEFAULT_MEASURES", "evaluate"]

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "AP", "R@100", "Judged@10")


def evaluate(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Sequence[Candidate | ScoredDoc]],
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> dict[str, float]:
    """Mean of each measure over all queries in ``qrels``; a query that the run lacks counts 0.

    Args:
        qrels: qid -> docid -> grade.
        run: qid -> ranked documents; only their scores count.
        measures: names as ir_measures writes them, ``"nDCG@10"``, ``"AP(rel=2)"``.

    Raises:
        InputError: a measure that ir_measures does not know; no query of the run is judged.
        MissingDependency: ir_measures is not installed.
    """
    try:
        ir_measures = importlib.import_module("ir_measures")
    except ImportError:
        raise MissingDependency('measures need ir_measures: pip install "mixlm-rerank[eval]"') from None
    if not any(qid in qrels for qid in run):
        raise InputError(
            f"no query of the run is judged (run: {_some(run)}; judgments: {_some(qrels)}): do they belong together?"
        )
    parsed = {name: _parse(ir_measures, name) for name in measures}
    scores = {qid: {doc.docid: doc.score for doc in docs} for qid, docs in run.items()}
    values = ir_measures.calc_aggregate(list(parsed.values()), qrels, scores)
    return {name: float(values[measure]) for name, measure in parsed.items()}


def _parse(ir_measures: Any, name: str) -> Any:
    try:
        return ir_measures.parse_measure(name)
    except (ValueError, NameError, KeyError, SyntaxError) as error:
        raise InputError(f"unknown measure {name!r} (ir_measures: {error})") from None


def _some(ids: Mapping[str, Any]) -> str:
    return ", ".join(list(ids)[:3]) + " ..."
