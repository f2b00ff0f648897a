"""Paired tests against scipy's own and against values worked out by hand."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval import compare
from mixlm_rerank.eval.significance import holm, interval

BM25 = {"q1": 0.1, "q2": 0.5, "q3": 0.4, "q4": 0.9, "q5": 0.0}
BETTER = {"q1": 0.3, "q2": 0.6, "q3": 0.8, "q4": 0.9, "q5": 0.4}
WORSE = {"q1": 0.0, "q2": 0.5, "q3": 0.1, "q4": 0.7, "q5": 0.0}


def test_differences_wins_and_losses_are_counted_by_query() -> None:
    better, worse = compare({"bm25": BM25, "better": BETTER, "worse": WORSE}, "bm25")
    assert (better.system, better.wins, better.losses) == ("better", 4, 0)
    assert better.difference == pytest.approx(0.22)
    assert (worse.system, worse.wins, worse.losses) == ("worse", 0, 3)
    assert worse.difference == pytest.approx(-0.12)


def test_the_t_test_is_the_paired_one_and_two_sided() -> None:
    (found,) = compare({"bm25": BM25, "better": BETTER}, "bm25")
    assert found.p_t == pytest.approx(ttest_rel(list(BETTER.values()), list(BM25.values())).pvalue)


def test_the_randomisation_test_draws_all_sign_patterns_where_they_are_few() -> None:
    """Differences .2 .1 .4 0 .4: of the 32 sign patterns 4 have a mean as far from 0 (zero's sign does not count)."""
    (found,) = compare({"bm25": BM25, "better": BETTER}, "bm25")
    assert found.p_randomisation == pytest.approx(4 / 32)


def test_the_randomisation_test_gives_the_same_p_for_the_same_seed() -> None:
    many = {f"q{i}": (i * 37 % 11) / 11 for i in range(60)}
    other = {qid: value + (0.1 if i % 3 else -0.15) for i, (qid, value) in enumerate(many.items())}
    first, again = (compare({"a": many, "b": other}, "a", permutations=2000, seed=5)[0] for _ in range(2))
    assert first == again and 0 < first.p_randomisation < 1


def test_equal_systems_do_not_differ() -> None:
    (found,) = compare({"a": BM25, "b": dict(BM25)}, "a")
    assert (found.difference, found.wins, found.losses, found.p_t, found.p_randomisation) == (0, 0, 0, 1, 1)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(raw <= corrected <= 1 for raw, corrected in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda row: p_values[row])
    assert [adjusted[row] for row in order] == sorted(adjusted)


def test_systems_on_other_queries_and_unknown_baselines_are_refused() -> None:
    with pytest.raises(InputError, match="same queries"):
        compare({"a": BM25, "b": {"q1": 0.5}}, "a")
    with pytest.raises(InputError, match="'c' is none of the systems a"):
        compare({"a": BM25}, "c")


def test_one_query_is_no_evidence() -> None:
    (found,) = compare({"a": {"q": 0.9}, "b": {"q": 0.1}}, "b")
    assert (found.difference, found.p_t, found.p_randomisation) == (pytest.approx(0.8), 1.0, 1.0)


def test_an_interval_is_as_wide_as_the_mean_is_uncertain() -> None:
    """Of many values it is that of the normal distribution: 1.96 standard errors to both sides."""
    values = tuple((i * 37 % 101) / 101 for i in range(400))
    found = interval(values)
    assert found is not None
    error = 1.96 * statistics.stdev(values) / 20
    mean = statistics.fmean(values)
    assert found == (pytest.approx(mean - error, abs=error / 10), pytest.approx(mean + error, abs=error / 10))


def test_collections_of_an_interval_count_alike() -> None:
    """One without any spread halves the width, whatever its size."""
    values = tuple((i * 37 % 101) / 101 for i in range(400))
    alone, halved = interval(values), interval(values, (0.0,) * 5000)
    assert alone is not None and halved is not None
    assert halved[1] - halved[0] == pytest.approx((alone[1] - alone[0]) / 2, rel=0.1)


def test_a_few_queries_have_no_interval() -> None:
    assert interval((0.1, 0.2, 0.3, 0.4)) is None is interval()
    assert interval((0.1,) * 50, (0.5,) * 4) is None
    assert interval((0.25,) * 5) == (0.25, 0.25)
