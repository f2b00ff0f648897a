"""Depth curves, slices and examples, by hand and by properties."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_rerank import Candidate, ScoredDoc
from mixlm_rerank.eval.harness import depth_curve, examples, slices

sizes_and_values = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.tuples(st.integers(0, 12), st.floats(0, 1)), max_size=30
)


def docs(docids: Sequence[str]) -> list[ScoredDoc]:
    return [ScoredDoc(docid, -float(rank), rank, 0.0) for rank, docid in enumerate(docids, 1)]


def hits(docids: Sequence[str]) -> list[Candidate]:
    return [Candidate(docid, -float(rank)) for rank, docid in enumerate(docids, 1)]


def test_depth_curve_by_hand() -> None:
    """q1's only relevant document stands last of 12 and is ranked first; q2's are a and l, and a is ranked last."""
    found = "abcdefghijkl"
    ranking = {"q1": docs("labcdefghijk"), "q2": docs("lbcdefghijka")}
    qrels = {"q1": {"l": 1}, "q2": {"a": 1, "l": 1}, "q3": {"a": 1}}
    curve = depth_curve(ranking, {"q1": hits(found), "q2": hits(found)}, qrels, "RR", 15)
    assert curve == {10: pytest.approx((0 + 1 / 10) / 3), 15: pytest.approx((1 + 1) / 3)}


@pytest.mark.parametrize(
    ("depth", "cuts"), [(1, [1]), (10, [10]), (11, [10, 11]), (100, [10, 20, 50, 100]), (30, [10, 20, 30])]
)
def test_depths_of_the_curve_end_at_the_depth_itself(depth: int, cuts: list[int]) -> None:
    curve = depth_curve({"q": docs("ab")}, {"q": hits("ab")}, {"q": {"b": 1}}, "RR", depth)
    assert list(curve) == cuts


@given(sizes_and_values)
def test_slices_partition_the_queries_by_size(rows: dict[str, tuple[int, float]]) -> None:
    sizes = {qid: size for qid, (size, _) in rows.items()}
    values = {qid: value for qid, (_, value) in rows.items()}
    parts = slices("length", sizes, values)
    if len(rows) < 3:
        assert parts == []
        return
    assert 1 <= len(parts) <= 3
    bounds = [sorted({int(number) for number in part.label.replace("words", "").split(" to ")}) for part in parts]
    assert all(low[-1] < high[0] for low, high in zip(bounds, bounds[1:], strict=False))  # apart, in order
    for part, bound in zip(parts, bounds, strict=True):
        inside = [qid for qid in rows if bound[0] <= sizes[qid] <= bound[-1]]
        assert part.queries == len(inside) and part.value == pytest.approx(fmean(values[qid] for qid in inside))
    assert sum(part.queries for part in parts) == len(rows)


def test_different_sizes_make_three_equal_parts() -> None:
    sizes = {f"q{size}": size for size in range(1, 10)}
    parts = slices("length", sizes, dict.fromkeys(sizes, 0.5))
    assert [(part.label, part.queries) for part in parts] == [
        ("1 to 3 words", 3),
        ("4 to 6 words", 3),
        ("7 to 9 words", 3),
    ]


def test_queries_without_a_size_are_in_no_slice() -> None:
    parts = slices("length", {"a": 1, "b": 2, "c": 3}, {"a": 0.0, "b": 0.5, "c": 1.0, "d": 1.0})
    assert [(part.label, part.value) for part in parts] == [("1 words", 0.0), ("2 words", 0.5), ("3 words", 1.0)]


def test_examples_are_the_largest_wins_then_the_largest_losses() -> None:
    gains = {"a": 0.1, "b": -0.5, "c": 0.0, "d": 0.4, "e": 0.3, "f": 0.2, "g": -0.1}
    before = dict.fromkeys(gains, 0.5)
    after = {qid: 0.5 + gain for qid, gain in gains.items()}
    ours, theirs = ({qid: docs(order) for qid in gains if qid != "g"} for order in ("wxyz", "zyxw"))
    found = examples(
        "mine",
        (ours, theirs),
        (after, before),
        {qid: f"query {qid}" for qid in gains},
        {qid: {"w": 2, "z": 0} for qid in gains},
        {"w": "x" * 700, "y": "short"},
    )
    assert [example.qid for example in found] == ["d", "e", "f", "b", "g"]
    assert [(example.value, example.baseline_value) for example in found[:1]] == [(0.9, 0.5)]
    assert {(example.system, example.query == f"query {example.qid}") for example in found} == {("mine", True)}
    first, last = found[0], found[-1]
    assert [(doc.docid, doc.grade) for doc in first.documents] == [("w", 2), ("x", None), ("y", None)]
    assert [(doc.docid, doc.grade) for doc in first.baseline_documents] == [("z", 0), ("y", None), ("x", None)]
    assert [len(doc.text) for doc in first.documents] == [600, 0, 5]
    assert (last.documents, last.baseline_documents) == ([], [])  # no candidates


def test_equal_values_are_no_example() -> None:
    values = {"a": 0.5, "b": 0.5}
    assert examples("mine", ({}, {}), (values, values), {"a": "", "b": ""}, {"a": {}, "b": {}}, {}) == []
