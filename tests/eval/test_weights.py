"""The weight of the first stage, against a search by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import ir_measures
import pytest

from mixlm_rerank import Candidate, ScoredDoc
from mixlm_rerank.eval.weights import WEIGHTS, Development, fit_weight
from mixlm_rerank.systems.ranked import Candidates


def development(queries: int, seed: int) -> Development:
    """Scores at random; the first stage and the system both know a little of what is relevant."""
    draw = random.Random(seed)
    hits, ranking, qrels = {}, {}, {}
    for number in range(queries):
        qid = f"q{number}"
        qrels[qid] = {f"d{row}": int(row < 3) for row in range(12)}
        first = {docid: draw.gauss(grade * 1.5, 1) * 30 for docid, grade in qrels[qid].items()}
        own = {docid: draw.gauss(grade, 1) for docid, grade in qrels[qid].items()}
        hits[qid] = [Candidate(docid, score) for docid, score in sorted(first.items(), key=lambda pair: -pair[1])]
        best = sorted(own, key=lambda docid: -own[docid])
        ranking[qid] = [ScoredDoc(docid, own[docid], rank, first[docid]) for rank, docid in enumerate(best, 1)]
    return Development(Candidates("by hand", 12, hits, {}), ranking, qrels)


def by_hand(found: Development, weight: float, qids: Sequence[str] = ()) -> float:
    """AP of these queries, of all for none."""
    run: dict[str, dict[str, float]] = {}
    for qid, hits in found.candidates.of_query.items():
        first = {hit.docid: hit.score for hit in hits}
        own = {doc.docid: doc.score for doc in found.ranking[qid]}
        run[qid] = {docid: (1 - weight) * scaled(own, docid) + weight * scaled(first, docid) for docid in first}
    qrels = {qid: found.qrels[qid] for qid in qids or found.qrels}
    return float(ir_measures.calc_aggregate([ir_measures.AP], qrels, run)[ir_measures.AP])


def scaled(scores: dict[str, float], docid: str) -> float:
    low, high = min(scores.values()), max(scores.values())
    return (scores[docid] - low) / (high - low)


def test_every_weight_has_the_mean_over_collections_each_counting_alike() -> None:
    small, large = development(3, seed=1), development(30, seed=2)
    values = fit_weight([small, large], "AP").values
    assert list(values) == [pytest.approx(step / 20) for step in range(21)] == list(WEIGHTS)
    expected = {weight: fmean([by_hand(small, weight), by_hand(large, weight)]) for weight in WEIGHTS}
    assert values == pytest.approx(expected)
    assert 0 < max(values, key=lambda weight: values[weight]) < 1  # neither alone is best here


def test_the_ends_are_system_and_first_stage_alone() -> None:
    found = development(10, seed=3)
    alone = {qid: {doc.docid: doc.score for doc in docs} for qid, docs in found.ranking.items()}
    first = {qid: {hit.docid: hit.score for hit in hits} for qid, hits in found.candidates.of_query.items()}
    values = fit_weight([found], "nDCG@10").values
    for weight, run in ((0.0, alone), (1.0, first)):
        expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], found.qrels, run)
        assert values[weight] == pytest.approx(expected[ir_measures.nDCG @ 10])


def test_cross_validation_does_not_flatter() -> None:
    """Where the first stage is right on every query, all folds choose it."""
    found = development(40, seed=4)
    fitted = fit_weight([found], "AP")
    assert fitted.cross_validated is not None
    assert min(fitted.values.values()) < fitted.cross_validated <= fitted.values[fitted.weight]
    ideal = {qid: {docid: float(grade) for docid, grade in grades.items()} for qid, grades in found.qrels.items()}
    hits = {
        qid: [Candidate(hit.docid, ideal[qid][hit.docid]) for hit in own]
        for qid, own in found.candidates.of_query.items()
    }
    sure = fit_weight([replace(found, candidates=Candidates("by hand", 12, hits, {}))], "AP")
    assert sure.cross_validated == sure.values[sure.weight] == 1.0


def test_harm_is_counted_against_the_first_stage() -> None:
    found = development(30, seed=5)
    fitted = fit_weight([found, development(3, seed=6)], "AP")
    for weight in (0.0, 0.3, 1.0):
        worse = [qid for qid in found.qrels if by_hand(found, weight, [qid]) < by_hand(found, 1.0, [qid])]
        assert len(worse) <= fitted.worse[weight] <= len(worse) + 3
    assert (fitted.queries, fitted.worse[1.0]) == (33, 0)
    assert fitted.worse[0.0] > 3


def test_a_handful_of_queries_is_not_cross_validated() -> None:
    assert fit_weight([development(9, seed=1)], "AP").cross_validated is None
    assert fit_weight([development(9, seed=1), development(1, seed=2)], "AP").cross_validated is not None
