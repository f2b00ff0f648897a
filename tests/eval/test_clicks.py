"""Click models: click rates worked out by hand, rank by rank."""

from __future__ import annotations

import numpy as np
import pytest

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.clicks import JUDGED, judged_clicks

SESSIONS = 100_000


def rates(name: str, grades: list[int], highest: int) -> list[float]:
    """Share of sessions with a click, by rank, on documents of these grades."""
    docids = [f"d{rank}" for rank in range(len(grades))]
    qrels = {"q": dict(zip(docids, grades, strict=True)), "other": {"x": highest}}
    model = judged_clicks(name, qrels, depth=len(grades))
    lists = np.tile(np.arange(len(grades)), (SESSIONS, 1))
    return list(model.clicks("q", docids, lists, np.random.default_rng(0)).mean(axis=0))


@pytest.mark.parametrize(
    ("name", "grades", "highest", "expected"),
    [
        ("perfect", [1, 0, 1, -2], 1, [1, 0, 1, 0]),
        ("perfect", [0, 1, 2, 3, 4], 4, [0, 0.2, 0.4, 0.8, 1]),  # nobody stops
        ("navigational", [1, 1, 0], 1, [0.95, 0.95 * 0.145, 0.05 * 0.145**2]),  # 1 - .95 * .9 go on
        ("navigational", [0, 0, 1], 1, [0.05, 0.05 * 0.99, 0.95 * 0.99**2]),  # 1 - .05 * .2
        ("navigational", [1, 0, 2], 2, [0.5, 0.05 * 0.75, 0.95 * 0.75 * 0.99]),  # 1 - .5 * .5
        ("informational", [0, 1, 1], 1, [0.4, 0.9 * 0.96, 0.9 * 0.96 * 0.55]),  # 1 - .4 * .1, 1 - .9 * .5
        ("informational", [1, 2], 4, [0.6, 0.7 * 0.88]),  # 1 - .6 * .2
        (
            "informational",
            [1, 0],
            3,
            [0.6 + 0.1 / 3, 0.4 * (1 - (0.6 + 0.1 / 3) * (0.2 + 0.1 / 3))],
        ),  # grade 4/3 of five
        ("position-based", [1, 1, 0, 0], 1, [1, 1 / 2, 0.1 / 3, 0.1 / 4]),
        ("position-based", [1, 2, -1], 2, [0.1 + 0.9 / 3, 1 / 2, 0.1 / 3]),
    ],
)
def test_click_rates_are_those_worked_out_by_hand(
    name: str, grades: list[int], highest: int, expected: list[float]
) -> None:
    assert rates(name, grades, highest) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("name", JUDGED)
def test_documents_without_judgment_are_like_those_of_grade_0_and_ends_of_lists_like_nothing(name: str) -> None:
    model = judged_clicks(name, {"q": {"a": 2, "b": 0, "c": -1}}, depth=3)
    assert model.behaviour["q"]["b"] == model.behaviour["q"]["c"] == model.others
    assert model.asked == {"q": 1}
    lists = np.array([[0, -1, -1]] * 100)
    assert not model.clicks("q", ["a"], lists, np.random.default_rng(0))[:, 1:].any()


def test_grades_beyond_what_a_float_holds_to_the_power_of_two() -> None:
    assert judged_clicks("position-based", {"q": {"a": 5000, "b": 4999}}).behaviour["q"] == {
        "a": (pytest.approx(1), 0),
        "b": (pytest.approx(0.55), 0),
    }


def test_what_users_cannot_be_made_of() -> None:
    with pytest.raises(InputError, match="unknown click model 'lazy': there is perfect, navigational"):
        judged_clicks("lazy", {"q": {"a": 1}})
    with pytest.raises(InputError, match="no document is judged relevant"):
        judged_clicks("perfect", {"q": {"a": 0, "b": -2}})
