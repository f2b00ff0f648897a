"""Agreement of rankings, against values worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_rerank import Candidate
from mixlm_rerank.data.measures import kendall_tau, overlap, rank_biased_overlap
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval import fidelity

rankings = st.permutations(list("abcdefgh")).flatmap(lambda p: st.integers(1, 8).map(lambda n: list(p[:n])))


def run(**queries: Sequence[str]) -> dict[str, list[Candidate]]:
    return {qid: [Candidate(docid, -float(rank)) for rank, docid in enumerate(ids)] for qid, ids in queries.items()}


def test_rank_biased_overlap_by_hand() -> None:
    """a b c against a c b, p = .5: agreements 1, 1/2, 1, (1 - p) / p = 1: .5 + .125 + .125, and .125 at the end."""
    assert rank_biased_overlap("abc", "acb", 0.5) == pytest.approx(0.875)
    assert rank_biased_overlap("abc", "xyz", 0.5) == 0


def test_rank_biased_overlap_of_uneven_lists_by_hand() -> None:
    """a against b a, p = .5: X_1 = 0, X_2 = 1, s = 1, l = 2: .5^2 * 1/2 + (1/2) * .5^2 = .25."""
    assert rank_biased_overlap("a", "ba", 0.5) == pytest.approx(0.25)


@given(rankings, rankings, st.floats(0.1, 0.95))
def test_rank_biased_overlap_is_symmetric_and_lies_in_0_to_1(a: list[str], b: list[str], p: float) -> None:
    value = rank_biased_overlap(a, b, p)
    assert value == pytest.approx(rank_biased_overlap(b, a, p))
    assert -1e-9 <= value <= 1 + 1e-9
    assert rank_biased_overlap(a, a, p) == pytest.approx(1)


@pytest.mark.parametrize(("other", "tau"), [("abcd", 1), ("dcba", -1), ("bacd", 2 / 3), ("xbaycd", 2 / 3), ("a", 1)])
def test_kendall_tau_counts_the_pairs_that_both_rank(other: str, tau: float) -> None:
    assert kendall_tau("abcd", other) == pytest.approx(tau)


@pytest.mark.parametrize(("other", "share"), [("abc", 1), ("abx", 2 / 3), ("xyz", 0), ("a", 1 / 3), ("", 0)])
def test_overlap_is_a_share_of_the_teachers_first(other: str, share: float) -> None:
    assert overlap(other, "abc") == pytest.approx(share)
    assert overlap(other, "") == 0


def test_fidelity_is_a_mean_over_the_teachers_queries() -> None:
    teacher = run(q1="abcd", q2="abcd", q3="ab", q4="")
    found = fidelity(run(q1="abcd", q2="dcba", q9="ab"), teacher)  # q3 is missing and counts 0
    assert found.same_first == pytest.approx(1 / 3)
    assert found.kendall_tau == pytest.approx((1 - 1 + 0) / 3)
    assert found.overlap == pytest.approx(2 / 3)
    assert found.rank_biased_overlap == pytest.approx((1 + rank_biased_overlap("dcba", "abcd")) / 3)


def test_a_teacher_without_candidates_is_refused() -> None:
    with pytest.raises(InputError, match="no candidates"):
        fidelity(run(q1="ab"), run(q1=""))
