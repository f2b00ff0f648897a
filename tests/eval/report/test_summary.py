"""The summary's words: what it claims, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mixlm_rerank.eval import Comparison
from mixlm_rerank.eval.report.findings import summary
from mixlm_rerank.eval.results import CollectionResult, Evaluation
from mixlm_rerank.eval.standings import standings
from mixlm_rerank.systems.protocol import Efficiency

Make = Callable[..., Any]
Words = Callable[..., dict[str, str]]

QIDS = [f"q{number}" for number in range(20)]


def compared(difference: float, p_t: float, p_randomisation: float) -> Comparison:
    return Comparison("", difference, 1, 1, p_t, p_randomisation)


SURE, ONE_TEST, UNSURE, WORSE = (
    compared(0.1, 0.01, 0.01),
    compared(0.1, 0.01, 0.2),
    compared(0.1, 0.2, 0.2),
    compared(-0.1, 0.01, 0.01),
)


def values(mean: float, jitter: float = 0.0) -> dict[str, float]:
    return {qid: mean + (jitter if number % 2 else -jitter) for number, qid in enumerate(QIDS)}


@pytest.fixture
def words(make_evaluation: Make) -> Words:
    """``words(collection, ...)``: head -> text of the summary."""

    def summarised(*collections: CollectionResult, judged: str | None = None) -> dict[str, str]:
        found: Evaluation = make_evaluation(*collections)
        return {finding.head: finding.text for finding in summary(standings(found), judged)}

    return summarised


@pytest.fixture
def collection(make_system: Make, make_collection: Make) -> Make:
    """One with BM25 .4, MixLM .57 or ``mixlm``, the teacher .6; ``found``: MixLM against BM25."""

    def make(name: str, found: Comparison, mixlm: dict[str, float] | None = None) -> CollectionResult:
        systems = [
            make_system("BM25", values(0.4)),
            make_system(
                "MixLM", mixlm or values(0.57, 0.1), tokens=4, comparison=found, efficiency=Efficiency(8000.0, 1, 1)
            ),
            make_system("teacher", values(0.6), comparison=SURE, efficiency=Efficiency(200.0, 1, 1)),
        ]
        made: CollectionResult = make_collection(name, [*systems], teacher="teacher")
        return made

    return make


def test_every_verdict_is_called_by_its_name(words: Words, collection: Make) -> None:
    found = words(
        *(collection(name, verdict) for name, verdict in zip("ABCD", (SURE, ONE_TEST, UNSURE, WORSE), strict=True))
    )
    assert found["MixLM"] == (
        "MixLM: nDCG@10 .570, place 2 of 3. Against BM25: significantly better on A; better by one of the two tests "
        "only on B; no significant difference on C; significantly worse on D."
    )


def test_the_full_text_is_compared_in_quality_and_speed_and_tested(words: Words, collection: Make) -> None:
    """.57 of .6 is 95%; 8,000 of 200 documents/s are 40 times. Worse by .03 every time is significant, +-.1 is not."""
    sure = words(collection("A", SURE, values(0.57)), collection("B", SURE))["Against the full text"]
    assert sure == (
        "MixLM reaches 95.0% of the nDCG@10 of teacher and ranks 40× as many documents a second (8,000 against 200). "
        "Tested against teacher: no significant difference on B; significantly worse on A."
    )
    unsure = words(collection("A", SURE))["Against the full text"]
    assert unsure.endswith("Tested against teacher: no significant difference on A.")


def test_without_a_reference_or_speeds_less_is_said(words: Words, make_system: Make, make_collection: Make) -> None:
    alone = make_collection("C", [make_system("BM25", values(0.4)), make_system("MixLM", values(0.5), tokens=4)])
    assert words(alone)["MixLM"] == "MixLM: nDCG@10 .500, place 1 of 2."
    assert "Against the full text" not in words(alone)
    assert words(make_collection("C", [make_system("BM25", values(0.4))])) == {}


def test_losses_of_every_budget_are_told(words: Words, make_system: Make, make_collection: Make) -> None:
    def made(name: str, *found: Comparison) -> Any:
        budgets = [make_system(f"MixLM k={k}", values(0.5), tokens=k, comparison=one) for k, one in enumerate(found, 1)]
        return make_collection(name, [make_system("BM25", values(0.4)), *budgets])

    assert words(made("A", WORSE, SURE), made("B", WORSE, WORSE))["Losses"] == (
        "Significantly worse than BM25: MixLM k=1 on A and B; MixLM k=2 on B."
    )
    assert words(made("A", UNSURE, SURE))["Losses"] == "No MixLM is significantly worse than BM25 on any collection."


def test_unjudged_documents_are_a_reason_for_care(words: Words, make_system: Make, make_collection: Make) -> None:
    def made(judged: float) -> Any:
        systems = [
            make_system("BM25", values(0.4), measures={"nDCG@10": 0.4, "Judged@10": 0.95}),
            make_system("MixLM", values(0.4), tokens=4, measures={"nDCG@10": 0.4, "Judged@10": judged}),
        ]
        return make_collection("C", systems)

    care = words(made(0.7), judged="Judged@10")["Read with care"]
    assert "Judged@10 of MixLM is .700 on C, that of BM25 .950" in care
    assert "Read with care" not in words(made(0.93), judged="Judged@10")
