"""Measures against values computed by hand, and the rules that make two systems comparable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from math import log2

import pytest

from mixlm_rerank import Candidate, ScoredDoc
from mixlm_rerank.errors import InputError, MissingDependency, install_command
from mixlm_rerank.eval import DEFAULT_MEASURES, evaluate, evaluate_queries

QRELS = {"q1": {"d1": 2, "d2": 1, "d3": 0}, "q2": {"d4": 1}}
RUN = {
    "q1": [Candidate("d3", 4.0), Candidate("d1", 3.0), Candidate("d9", 2.0), Candidate("d2", 1.0)],
    "q2": [Candidate("d5", 2.0), Candidate("d4", 1.0)],
}
NDCG = ((2 / log2(3) + 1 / log2(5)) / (2 + 1 / log2(3)), 1 / log2(3))
BY_HAND = {
    "nDCG@10": sum(NDCG) / 2,
    "RR@10": (1 / 2 + 1 / 2) / 2,
    "AP": ((1 / 2 + 2 / 4) / 2 + 1 / 2) / 2,
    "R@100": 1.0,
    "Judged@10": (3 / 4 + 1 / 2) / 2,
    "AP(rel=2)": (1 / 2 + 0) / 2,
    "P@1": 0.0,
}


@pytest.mark.parametrize("measure", BY_HAND)
def test_equals_the_value_computed_by_hand(measure: str) -> None:
    assert evaluate(QRELS, RUN, [measure]) == {measure: pytest.approx(BY_HAND[measure])}


def test_the_default_measures() -> None:
    assert evaluate(QRELS, RUN) == pytest.approx({name: BY_HAND[name] for name in DEFAULT_MEASURES})


def test_ranked_documents_are_measured_like_candidates() -> None:
    ranked = {
        qid: [ScoredDoc(hit.docid, hit.score, rank, 0.0) for rank, hit in enumerate(hits, 1)]
        for qid, hits in RUN.items()
    }
    assert evaluate(QRELS, ranked) == evaluate(QRELS, RUN)


def test_a_judged_query_that_the_run_lacks_counts_zero() -> None:
    """The mean is over the three judged queries, not over the two that were answered."""
    judged = QRELS | {"q3": {"d1": 1}}
    expected = {name: BY_HAND[name] * 2 / 3 for name in ("nDCG@10", "RR@10", "AP", "R@100")}
    assert evaluate(judged, RUN, list(expected)) == pytest.approx(expected)
    assert evaluate(judged, RUN | {"q3": []}, list(expected)) == pytest.approx(expected)


def test_a_query_without_judgments_does_not_count() -> None:
    assert evaluate(QRELS, RUN | {"q9": [Candidate("d1", 1.0)]}) == pytest.approx(evaluate(QRELS, RUN))


def test_scores_decide_not_the_place_in_the_list() -> None:
    assert evaluate(QRELS, {qid: hits[::-1] for qid, hits in RUN.items()}) == evaluate(QRELS, RUN)


@pytest.mark.parametrize("name", ["RR", "RR@10", "nDCG@1", "Judged@1"])
def test_equal_scores_stand_in_falling_order_of_docids_as_in_trec_eval(name: str) -> None:
    """In every measure, whoever computes it."""
    qrels = {"q": {"b": 1}}
    assert evaluate(qrels, {"q": [Candidate("a", 1.0), Candidate("b", 1.0)]}, [name]) == {name: 1.0}
    behind = evaluate(qrels, {"q": [Candidate("b", 1.0), Candidate("c", 1.0)]}, [name])
    assert behind == {name: 0.5 if name.startswith("RR") else 0.0}


def test_values_are_plain_floats() -> None:
    assert {type(value) for value in evaluate(QRELS, RUN, ["nDCG@10", "NumRet"]).values()} == {float}


@pytest.mark.parametrize(
    ("measure", "told"),
    [
        ("nDGC@10", "unknown measure 'nDGC@10'"),
        ("nDCG@ten", "unknown measure 'nDCG@ten'"),
        ("nDCG@10 RR@10", "unknown measure 'nDCG@10 RR@10'"),
        ("", "unknown measure ''"),
        ("P", "'P' has a wrong parameter or lacks one: it takes cutoff (required), rel"),
        ("AP(foo=2)", "'AP(foo=2)' has a wrong parameter or lacks one: it takes cutoff, rel"),
        ("nDCG@1.5", "'nDCG@1.5' has a wrong parameter"),
        ("nDCG@0", "'nDCG@0' looks at no document: the cutoff must be at least 1"),
        ("AP(rel=0)", "ir_measures cannot compute RR@10, AP(rel=0)"),
    ],
)
def test_a_measure_that_cannot_be_computed_is_named(measure: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(QRELS, RUN, ["RR@10", measure])
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"), [("ndcg_cut_10", "nDCG@10"), ("map", "AP"), ("ndcg@10", "nDCG@10"), ("recall@100", "Recall@100")]
)
def test_names_of_other_tools_are_translated(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"unknown measure '{name}' \(write {meant}\)"):
        evaluate(QRELS, RUN, [name])


def test_one_measure_alone_is_a_list_too() -> None:
    with pytest.raises(InputError, match=r"measures must be a list of strings, not one string: \['nDCG@10'\]"):
        evaluate(QRELS, RUN, "nDCG@10")


def test_a_run_and_judgments_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InputError, match=r"run: 7, 8; judgments: q1, q2\).*belong together"):
        evaluate(QRELS, {"7": [Candidate("d1", 1.0)], "8": []})


def test_without_ir_measures_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingDependency, match=re.escape(install_command("eval"))):
        evaluate(QRELS, RUN)


def test_ranked_documents_count_in_their_order_however_near_their_scores() -> None:
    """trec_eval keeps scores as float32, where these two are equal, and would then put "z" first."""
    docs = [ScoredDoc("a", 30.0000002, 1, 0.0), ScoredDoc("z", 30.0000001, 2, 0.0)]
    assert evaluate({"q": {"a": 1}}, {"q": docs}, ["nDCG@1"]) == {"nDCG@1": 1.0}
    assert evaluate({"q": {"a": 1}}, {"q": [Candidate(d.docid, d.score) for d in docs]}, ["nDCG@1"]) == {"nDCG@1": 0.0}


def test_negative_grades_count_as_not_relevant() -> None:
    """-2 is spam in TREC's web tracks. It is judged, and never lowers a value below that of grade 0."""
    clipped = {"q": {"a": 2, "b": 0, "c": 0, "d": 1}}
    run = {"q": [Candidate(docid, -float(rank)) for rank, docid in enumerate("baxdc")]}
    found = evaluate({"q": {"a": 2, "b": -2, "c": -1, "d": 1}}, run)
    assert found == pytest.approx(evaluate(clipped, run))
    assert found["nDCG@10"] == pytest.approx((2 / log2(3) + 1 / log2(5)) / (2 + 1 / log2(3)))
    assert found["Judged@10"] == pytest.approx(4 / 5)


def test_a_query_with_negative_grades_alone_counts_zero() -> None:
    """trec_eval itself writes over its memory, and the process ends, where such a query follows another."""
    program = (
        "from mixlm_rerank import Candidate; from mixlm_rerank.eval import evaluate_queries; "
        "print(evaluate_queries({'p': {'a': 3}, 'q': {'b': -2}}, {i: [Candidate('a', 2), Candidate('b', 1)] for i in "
        "'pq'}, ['nDCG@10', 'AP', 'Judged@10']))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert ast.literal_eval(done.stdout) == {
        "nDCG@10": {"p": 1.0, "q": 0.0},
        "AP": {"p": 1.0, "q": 0.0},
        "Judged@10": {"p": 0.5, "q": 0.5},
    }


def test_one_measure_under_two_names_has_values_under_both() -> None:
    qrels, run = {"q": {"a": 1}}, {"q": [Candidate("b", 2.0), Candidate("a", 1.0)]}
    assert evaluate_queries(qrels, run, ["RR@10", "MRR@10"]) == {"RR@10": {"q": 0.5}, "MRR@10": {"q": 0.5}}
