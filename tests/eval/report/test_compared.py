"""The difference between two evaluations, as people read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mixlm_rerank.eval.report import comparison_html, comparison_text
from mixlm_rerank.eval.report.compared import EvaluationDifference, compare_evaluations
from mixlm_rerank.systems.protocol import Efficiency

Make = Callable[..., Any]


@pytest.fixture
def found(make_system: Make, make_collection: Make, make_evaluation: Make) -> EvaluationDifference:
    """On C, MixLM gains .25 on each of ten queries and doubles its speed; D has another depth."""
    qids = [f"q{number}" for number in range(10)]

    def made(value: float, speed: float, depth: int, extra: str, machine: str) -> Any:
        systems = [
            make_system("BM25", dict.fromkeys(qids, 0.25)),
            make_system("Mix_LM", dict.fromkeys(qids, value), efficiency=Efficiency(speed, 1, 1)),
            make_system(extra, dict.fromkeys(qids, 0.5)),
        ]
        collections = make_collection("C", systems), make_collection("D<1>", systems, depth=depth)
        return make_evaluation(*collections, machine={"processor": machine})

    old, new = made(0.5, 100.0, 100, "<gone>", "Epyc"), made(0.75, 200.0, 50, "added", "Xeon")
    return compare_evaluations(old, new)


def test_text_to_the_letter(found: EvaluationDifference) -> None:
    assert comparison_text(found).splitlines() == [
        "nDCG@10: B against A, the systems and collections that both have.",
        "Pairs tested: 1; significantly better in 1. Tests: paired t-test and paired randomisation test over "
        "the same queries, two-sided; significant is p < .05 after Holm's correction over the systems of a collection.",
        "The machines differ, so speeds are not comparable: processor Epyc, then Xeon.",
        "",
        "C",
        "Only in A: <gone>.",
        "Only in B: added.",
        "system     A     B  difference   p, t-test  p, random.  wins/losses  speed",
        "BM25    .250  .250        .000           –           –            –      –",
        "Mix_LM  .500  .750       +.250▲      <.001        .002         10/0   2.0×",
        "",
        "D<1>",
        "Not tested: another depth (100 candidates, then 50).",
        "Only in A: <gone>.",
        "Only in B: added.",
        "system     A     B  difference   speed",
        "BM25    .250  .250        .000       –",
        "Mix_LM  .500  .750       +.250    2.0×",
    ]


def test_html_has_the_same_and_nothing_from_elsewhere(found: EvaluationDifference) -> None:
    html = comparison_html(found)
    assert "<h2>D&lt;1&gt;</h2>" in html and "Only in A: &lt;gone&gt;." in html
    assert html.count("<script>") == 1 and "http://" not in html and "https://" not in html
    assert "Not tested: another depth (100 candidates, then 50)." in html
    assert ">+.250<i>▲</i>" in html.replace("\n", "")
