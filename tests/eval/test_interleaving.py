"""Interleaving: lists and credit worked out by hand, properties of all lists, and who wins."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_rerank import Candidate
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.clicks import JUDGED, ClickModel, judged_clicks
from mixlm_rerank.eval.interleaving import (
    ABSENT,
    balanced,
    balanced_credit,
    interleave,
    sessions_needed,
    share_known,
    team_draft,
    team_draft_credit,
)

Lists = tuple[str, str]  # of A and of B; a letter is a document
METHODS: Any = ("team-draft", "balanced")
rankings = st.tuples(*[st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1).map("".join)] * 2)


def ranks(lists: Lists) -> tuple[list[str], Any]:
    docids = sorted(set("".join(lists)))
    return docids, np.array([[own.find(doc) if doc in own else ABSENT for doc in docids] for own in lists])


def shown(lists: Lists, method: str, depth: int, sessions: int = 1000) -> Counter[tuple[str, ...]]:
    """How often each list was shown; of team-draft with the teams, as in ('xz', '01')."""
    docids, own = ranks(lists)
    rng = np.random.default_rng(0)
    drawn, teams = team_draft(own, sessions, depth, rng) if method == "team-draft" else (None, None)
    drawn = balanced(own, sessions, depth, rng) if drawn is None else drawn
    texts = ["".join(docids[place] for place in row if place >= 0) for row in drawn]
    if teams is None:
        return Counter((text,) for text in texts)
    return Counter((text, "".join(str(t) for t in row if t >= 0)) for text, row in zip(texts, teams, strict=True))


def run(lists: dict[str, str]) -> dict[str, list[Candidate]]:
    return {qid: [Candidate(docid, -float(rank)) for rank, docid in enumerate(own)] for qid, own in lists.items()}


@pytest.mark.parametrize(
    ("lists", "depth", "expected"),
    [
        (("xy", "xz"), 3, {("xz", "01"), ("xy", "10")}),  # then one of them has nothing more to add
        (("xy", "xz"), 1, {("x", "0"), ("x", "1")}),
        (("abc", "bca"), 3, {("abc", "010"), ("abc", "011"), ("bac", "100"), ("bac", "101")}),
        (("a", "bcd"), 4, {("a", "0"), ("ba", "10")}),
        (("a", "a"), 4, {("a", "0"), ("a", "1")}),
    ],
)
def test_team_draft_shows_what_was_worked_out_by_hand(lists: Lists, depth: int, expected: set[tuple[str, str]]) -> None:
    counts = shown(lists, "team-draft", depth)
    assert set(counts) == expected
    assert all(count == pytest.approx(1000 / len(expected), abs=60) for count in counts.values())


@pytest.mark.parametrize(
    ("lists", "depth", "expected"),
    [
        (("abc", "bca"), 3, {"abc", "bac"}),
        (("abcd", "bedf"), 4, {"abec", "baed"}),
        (("abcd", "bedf"), 9, {"abecd", "baedcf"}),
        (("a", "bcd"), 4, {"a", "ba"}),
        (("ab", "ab"), 1, {"a"}),
    ],
)
def test_balanced_shows_what_was_worked_out_by_hand(lists: Lists, depth: int, expected: set[str]) -> None:
    counts = shown(lists, "balanced", depth)
    assert {text for (text,) in counts} == expected
    assert all(count == pytest.approx(1000 / len(expected), abs=60) for count in counts.values())


@given(rankings, st.integers(1, 9))
def test_a_list_holds_documents_of_both_once_and_no_team_gets_ahead(lists: Lists, depth: int) -> None:
    for text, teams in shown(lists, "team-draft", depth, sessions=20):
        assert len(set(text)) == len(text) == len(teams) <= depth
        assert set(text) <= set("".join(lists))
        for end in range(1, len(teams) + 1):
            assert abs(teams[:end].count("0") - teams[:end].count("1")) <= 1
        for place, (doc, team) in enumerate(zip(text, teams, strict=True)):
            own = lists[int(team)]  # each adds its best document that is left
            assert doc == next(other for other in own if other not in text[:place])
        if len(text) < depth:
            assert any(set(own) <= set(text) for own in lists)


@given(rankings, st.integers(1, 9))
def test_every_beginning_of_a_balanced_list_is_the_two_runs_beginnings(lists: Lists, depth: int) -> None:
    for (text,) in shown(lists, "balanced", depth, sessions=20):
        assert len(set(text)) == len(text) <= depth
        for end in range(1, len(text) + 1):
            beginnings = [set(lists[0][:a]) | set(lists[1][:b]) for a in range(9) for b in (a - 1, a, a + 1) if b >= 0]
            assert set(text[:end]) in beginnings


@pytest.mark.parametrize(
    ("clicked", "expected"),
    [("", [0, 0]), ("a", [1, 0]), ("b", [0, 1]), ("c", [0, 1]), ("ab", [1, 1]), ("ac", [1, 1]), ("bc", [1, 2])],
)
@pytest.mark.parametrize("text", ["abc", "bac"])
def test_balanced_credit_is_that_worked_out_by_hand(text: str, clicked: str, expected: list[int]) -> None:
    """A abc, B bca: a and b are covered by the first document of both, c by the first two (A's a, b and B's b, c)."""
    docids, own = ranks(("abc", "bca"))
    lists = np.array([[docids.index(doc) for doc in text]])
    clicks = np.array([[doc in clicked for doc in text]])
    assert balanced_credit(own, lists, clicks).tolist() == [expected]


def test_team_draft_credit_counts_clicks_on_each_teams_documents() -> None:
    teams = np.array([[0, 1, 1, 0], [1, 0, -1, -1]])
    clicks = np.array([[True, True, True, False], [True, False, False, False]])
    assert team_draft_credit(teams, clicks).tolist() == [[1, 2], [0, 1]]


def test_the_sessions_needed_are_those_worked_out_by_hand() -> None:
    """(1.95996 sqrt(.5) + .84162 sqrt(.49))^2 / .1^2 = 390.1; without ties, (1.95996 + .84162 sqrt(.96))^2 / .2^2."""
    assert sessions_needed(0.2, 0.3) == sessions_needed(0.3, 0.2) == 391
    assert sessions_needed(0.4, 0.6) == math.ceil((1.959964 + 0.841621 * 0.96**0.5) ** 2 / 0.04) == 194
    assert sessions_needed(0.25, 0.25) is None


QRELS = {f"q{number}": {doc: 1 for doc in "abc"} | {"x": 0} for number in range(20)}
BEST = run(dict.fromkeys(QRELS, "abcdefgh"))
WORST = run(dict.fromkeys(QRELS, "hgfedcba"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", JUDGED)
def test_a_system_against_itself_wins_half(name: str, method: Any) -> None:
    found = interleave(WORST, WORST, judged_clicks(name, QRELS), method=method, sessions=40_000)
    assert found.preference == pytest.approx(0.5, abs=0.01)
    assert found.a + found.b + found.ties == 40_000
    assert (found.ties == 40_000) == (method == "balanced")  # both are credited with every click


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", JUDGED)
def test_the_system_with_all_relevant_documents_first_is_preferred(name: str, method: Any) -> None:
    model = judged_clicks(name, QRELS)
    found, turned = (
        interleave(*runs, model, method=method, sessions=20_000) for runs in ((WORST, BEST), (BEST, WORST))
    )
    assert 0.5 < found.low <= found.preference <= found.high
    assert turned.low <= turned.preference <= turned.high < 0.5
    assert found.sessions_needed == sessions_needed(found.a / 20_000, found.b / 20_000)


def test_users_who_click_at_random_prefer_neither_under_team_draft() -> None:
    model = ClickModel(
        "random", np.ones(8), {qid: {"a": (0.5, 0.1)} for qid in QRELS}, (0.5, 0.1), dict.fromkeys(QRELS, 1)
    )
    found = interleave(WORST, run(dict.fromkeys(QRELS, "cadgbefh")), model, sessions=40_000)
    assert found.preference == pytest.approx(0.5, abs=0.01) and found.a > 10_000


@pytest.mark.parametrize(("depth", "expected"), [(1, 0.25), (2, 0.0)])
def test_the_preference_is_that_worked_out_by_hand(depth: int, expected: float) -> None:
    """A has the only relevant document first: it is always A's, but one place is B's in half of the sessions."""
    qrels = {"q1": {"r": 1}, "q2": {"r": 1}}
    model = judged_clicks("perfect", qrels, depth=depth)
    found = interleave(run(dict.fromkeys(qrels, "rn")), run(dict.fromkeys(qrels, "nr")), model, sessions=10_000)
    assert found.preference == pytest.approx(expected, abs=0.02) and found.b == 0


def test_queries_count_as_often_as_they_are_asked() -> None:
    known = {"q1": {"r": (1.0, 0.0)}, "q2": {"r": (1.0, 0.0)}, "gone": {"r": (1.0, 0.0)}}
    model = ClickModel("log", np.ones(2), known, (0.0, 0.0), {"q1": 3, "q2": 1, "gone": 50})
    a, b = run({"q1": "rn", "q2": "nr"}), run({"q1": "nr", "q2": "rn", "more": "r"})
    found = interleave(a, b, model, sessions=10_000)
    assert found.preference == pytest.approx(0.25, abs=0.02)
    assert (found.low, found.high) == (0, 1)  # of two queries, one for each


def test_one_query_says_nothing_about_others() -> None:
    found = interleave(run({"q": "ab"}), run({"q": "ba"}), judged_clicks("perfect", {"q": {"a": 1}}), sessions=100)
    assert (found.a, found.low, found.high, found.sessions_needed) == (100, 0, 1, None)


def test_the_same_seed_gives_the_same_sessions() -> None:
    model = judged_clicks("informational", QRELS)
    first, again, other = (interleave(WORST, BEST, model, sessions=500, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_the_share_of_known_documents() -> None:
    model = judged_clicks("perfect", {"q": {"a": 1, "b": 0, "z": 0}}, depth=2)
    assert share_known(run({"q": "abz"}), run({"q": "cdz"}), model) == 0.5


@pytest.mark.parametrize(
    ("a", "b", "qrels", "told"),
    [
        ({"q1": "ab"}, {"q2": "ab"}, {"q1": {"a": 1}, "q2": {"a": 1}}, r"A: q1; B: q2; judged or logged: q1, q2"),
        ({"q1": "ab"}, {"q1": ""}, {"q1": {"a": 1}}, "no query is in both runs"),
        ({"q1": "ab"}, {"q1": "ab"}, {"7": {"a": 1}}, "no query is in both runs and judged or logged"),
        ({"q1": "ab"}, {"q1": "ba"}, {"q1": {"D-a": 1}}, r"none of the first 10 documents of either run is known"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    a: dict[str, str], b: dict[str, str], qrels: dict[str, dict[str, int]], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        interleave(run(a), run(b), judged_clicks("perfect", qrels))


def test_unknown_methods_and_no_sessions_are_refused() -> None:
    wrong: Any = "mixed"
    with pytest.raises(InputError, match="unknown interleaving 'mixed': there is team-draft and balanced"):
        interleave(BEST, WORST, judged_clicks("perfect", QRELS), method=wrong)
    with pytest.raises(InputError, match="sessions must be at least 1, not 0"):
        interleave(BEST, WORST, judged_clicks("perfect", QRELS), sessions=0)
