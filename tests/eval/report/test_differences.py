"""Two evaluations: differences, tests and speed ratios by hand; what cannot be tested is said and not tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import ttest_rel

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.report.compared import compare_evaluations
from mixlm_rerank.eval.results import CollectionResult
from mixlm_rerank.eval.significance import holm
from mixlm_rerank.systems.protocol import Efficiency

Make = Callable[..., Any]

FIRST = {"q1": 0.1, "q2": 0.2, "q3": 0.3, "q4": 0.4}
OLD = {"q1": 0.2, "q2": 0.4, "q3": 0.6, "q4": 0.5}
NEW = {"q1": 0.3, "q2": 0.6, "q3": 0.5, "q4": 0.9}
OTHER = {"q1": 0.2, "q2": 0.2, "q3": 0.9, "q4": 0.1}


@pytest.fixture
def before(make_system: Make, make_collection: Make) -> CollectionResult:
    fast, slow = Efficiency(900.0, 1.0, 1.0), Efficiency(200.0, 1.0, 1.0)
    systems = [
        make_system("first stage", FIRST, kind="first stage"),
        make_system("MixLM", OLD, efficiency=slow),
        make_system("cosine", OTHER, efficiency=fast),
        make_system("gone", OLD),
        make_system("oracle", NEW),
    ]
    found: CollectionResult = make_collection("C", systems)
    return found


@pytest.fixture
def after(make_system: Make, make_collection: Make) -> CollectionResult:
    systems = [
        make_system("first stage", FIRST, kind="first stage"),
        make_system("MixLM", NEW, efficiency=Efficiency(500.0, 1.0, 1.0)),
        make_system("cosine", OLD),
        make_system("added", OLD),
        make_system("oracle", NEW),
    ]
    found: CollectionResult = make_collection("C", systems)
    return found


def test_what_is_in_both_is_compared_by_query(
    before: CollectionResult, after: CollectionResult, make_evaluation: Make
) -> None:
    found = compare_evaluations(make_evaluation(before), make_evaluation(after))
    (collection,) = found.collections
    assert (found.measure, found.machines, collection.obstacles) == ("nDCG@10", {}, ())
    assert (collection.only_a, collection.only_b) == (("gone",), ("added",))
    mixlm = next(system for system in collection.systems if system.name == "MixLM")
    assert (mixlm.a, mixlm.b) == (pytest.approx(0.425), pytest.approx(0.575))
    assert mixlm.comparison is not None
    assert (mixlm.comparison.wins, mixlm.comparison.losses) == (3, 1)
    assert mixlm.comparison.difference == pytest.approx(0.15)
    assert mixlm.speed_ratio == pytest.approx(2.5)


def test_p_values_are_holm_corrected_over_the_systems_of_the_collection(
    before: CollectionResult, after: CollectionResult, make_evaluation: Make
) -> None:
    """Two systems are tested; MixLM's differences are +.1 +.2 -.1 +.4: 6 of 16 sign patterns reach their sum of .6."""
    (collection,) = compare_evaluations(make_evaluation(before), make_evaluation(after)).collections
    tests = {system.name: system.comparison for system in collection.systems}
    raw = [
        ttest_rel(list(NEW.values()), list(OLD.values())).pvalue,
        ttest_rel(list(OLD.values()), list(OTHER.values())).pvalue,
    ]
    assert tests["MixLM"] is not None and tests["cosine"] is not None
    assert [tests["MixLM"].p_t, tests["cosine"].p_t] == pytest.approx(holm(raw))
    assert tests["MixLM"].p_randomisation == pytest.approx(2 * 6 / 16)


def test_first_stage_and_oracle_are_shown_but_not_tested(
    before: CollectionResult, after: CollectionResult, make_evaluation: Make
) -> None:
    (collection,) = compare_evaluations(make_evaluation(before), make_evaluation(after)).collections
    untested = [system.name for system in collection.systems if system.comparison is None]
    assert untested == ["first stage", "oracle"]


def test_what_makes_the_systems_incomparable_is_said_and_nothing_is_tested(
    before: CollectionResult, after: CollectionResult, make_evaluation: Make, make_system: Make
) -> None:
    moved = [make_system("first stage", FIRST | {"q4": 0.5}, kind="first stage"), *after.systems[1:]]
    fewer = [make_system("first stage", {"q1": 0.1, "q9": 0.2}), make_system("MixLM", {"q1": 0.1, "q9": 0.2})]
    for changed, told in (
        (replace(after, depth=1000), "another depth (100 candidates, then 1,000)"),
        (replace(after, first_stage="SPLADE"), "another first stage (BM25, then SPLADE)"),
        (replace(after, documents=999), "another corpus (1,000 documents, then 999)"),
        (replace(after, systems=moved), "other results of the first stage BM25 (nDCG@10 .250, then .275)"),
        (replace(after, systems=fewer), "other judged queries (1 in both, 3 only before, 1 only after)"),
    ):
        (collection,) = compare_evaluations(make_evaluation(before), make_evaluation(changed)).collections
        assert collection.obstacles == (told,)
        assert [system.comparison for system in collection.systems] == [None] * len(collection.systems)
        assert collection.systems[1].b == changed.systems[1].measures["nDCG@10"]


def test_an_unread_corpus_is_no_obstacle(
    before: CollectionResult, after: CollectionResult, make_evaluation: Make
) -> None:
    (collection,) = compare_evaluations(
        make_evaluation(before), make_evaluation(replace(after, documents=None))
    ).collections
    assert collection.obstacles == ()


def test_what_differs_between_the_machines_is_named(
    before: CollectionResult, after: CollectionResult, make_evaluation: Make
) -> None:
    old = make_evaluation(before, machine={"processor": "Epyc", "cores": "2"})
    new = make_evaluation(after, machine={"processor": "Epyc", "cores": "16", "accelerator": "H200"})
    assert compare_evaluations(old, new).machines == {"cores": ("2", "16"), "accelerator": ("", "H200")}


def test_collections_in_one_of_them_are_listed(
    before: CollectionResult, after: CollectionResult, make_evaluation: Make
) -> None:
    old, new = replace(before, name="old"), replace(after, name="new")
    found = compare_evaluations(make_evaluation(old, before), make_evaluation(after, new))
    assert (found.only_a, found.only_b, [one.name for one in found.collections]) == (("old",), ("new",), ["C"])


def test_evaluations_without_a_common_collection_or_measure_are_refused(
    before: CollectionResult, after: CollectionResult, make_evaluation: Make
) -> None:
    with pytest.raises(InputError, match="no collection is in both: A has C, B has D"):
        compare_evaluations(make_evaluation(before), make_evaluation(replace(after, name="D")))
    with pytest.raises(InputError, match="no measure is in both: A has nDCG@10, B has AP"):
        compare_evaluations(make_evaluation(before), make_evaluation(after, measures=["AP"]))
