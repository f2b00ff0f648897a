"""Rows of the big table: means, seeds, marks and what counts as best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mixlm_rerank.eval import Comparison
from mixlm_rerank.eval.significance import Verdict
from mixlm_rerank.eval.standings import standings
from mixlm_rerank.systems.protocol import Efficiency

Make = Callable[..., Any]


def compared(difference: float, p_t: float, p_randomisation: float) -> Comparison:
    return Comparison("x", difference, 0, 0, p_t, p_randomisation)


@pytest.mark.parametrize(
    ("difference", "p_t", "p_randomisation", "expected"),
    [
        (0.1, 0.049, 0.01, Verdict.BETTER),
        (0.1, 0.05, 0.01, Verdict.BETTER_IN_ONE),
        (0.1, 0.05, 0.06, Verdict.NO_DIFFERENCE),
        (-0.1, 0.06, 0.04, Verdict.WORSE_IN_ONE),
        (-0.1, 0.0, 0.0, Verdict.WORSE),
    ],
)
def test_a_verdict_says_how_many_tests_found_a_difference(
    difference: float, p_t: float, p_randomisation: float, expected: Verdict
) -> None:
    assert compared(difference, p_t, p_randomisation).verdict is expected


def test_a_mark_of_several_seeds_holds_for_each_of_them(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    sure, one_test, unsure, worse = (
        compared(0.1, 0.01, 0.01),
        compared(0.1, 0.01, 0.2),
        compared(0.1, 0.2, 0.2),
        compared(-0.1, 0.01, 0.01),
    )
    groups = {"both": (sure, sure), "weaker": (sure, one_test), "none": (sure, unsure), "split": (sure, worse)}
    seeds = [
        make_system(f"{name} {n}", {"q": 0.5}, seed_group=name, comparison=found)
        for name, pair in groups.items()
        for n, found in enumerate(pair)
    ]
    table = standings(make_evaluation(make_collection("C", [make_system("BM25", {"q": 0.4}), *seeds])))
    marks = {row.name: row.verdicts[0] for row in table.rows}
    assert marks == {
        "BM25": None,
        "both": Verdict.BETTER,
        "weaker": Verdict.BETTER_IN_ONE,
        "none": Verdict.NO_DIFFERENCE,
        "split": Verdict.NO_DIFFERENCE,
    }


def test_the_mean_is_over_all_collections_or_there_is_none(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    one = make_collection("1", [make_system("BM25", {"q": 0.2}), make_system("a", {"q": 0.9})])
    two = make_collection("2", [make_system("BM25", {"q": 0.6}), make_system("b", {"q": 0.3})])
    table = standings(make_evaluation(one, two))
    assert {row.name: row.mean for row in table.rows} == {"BM25": pytest.approx(0.4), "a": None, "b": None}
    assert [there is None for row in table.rows for there in row.on] == [False, False, False, True, True, False]
    assert [row.name for row in table.best] == ["BM25"]


def test_speed_is_the_harmonic_mean_over_collections(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    """300 documents of each collection at 100 and 300 a second take 3 s and 1 s: 150 a second."""
    collections = [
        make_collection(str(speed), [make_system("a", {"q": 0.5}, efficiency=Efficiency(speed, 1.0, 1.0))])
        for speed in (100.0, 300.0)
    ]
    assert standings(make_evaluation(*collections)).rows[0].documents_per_second == pytest.approx(150)


def test_what_looks_equal_is_equally_best_and_the_oracle_never_is(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    values = {"oracle": 0.9, "BM25": 0.4, "a": 0.70041, "b": 0.69961}
    table = standings(make_evaluation(make_collection("C", [make_system(n, {"q": v}) for n, v in values.items()])))
    assert [row.name for row in table.rows] == ["BM25", "a", "b", "oracle"]
    assert [row.name for row in table.best] == ["a", "b"]


def test_roles_are_told_from_the_collection_where_the_kind_was_left_open(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    systems = [
        make_system("BM25", {"q": 0.4}),
        make_system("Oracle", {"q": 0.9}),
        make_system("mine", {"q": 0.5}, tokens=4),
        make_system("monoT5", {"q": 0.6}),
        make_system("fused", {"q": 0.6}, kind="combination", tokens=4),
        make_system("else", {"q": 0.6}),
    ]
    table = standings(make_evaluation(make_collection("C", systems, teacher="monoT5")))
    assert {row.name: row.kind for row in table.rows} == {
        "BM25": "first stage",
        "mine": "MixLM",
        "monoT5": "full text",
        "fused": "combination",
        "else": "other",
        "Oracle": "oracle",
    }
    assert (table.baseline, table.teacher) == ("BM25", "monoT5")
