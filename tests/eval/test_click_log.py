"""Click logs: what is read and refused, and the position-based model against one that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.clicks import Impression, logged_clicks, read_click_log


def page(qid: str, shown: str, clicked: str = "") -> Impression:
    return Impression(qid, tuple(shown.split()), frozenset(clicked.split()))


@pytest.mark.parametrize("query", ["qid", "query"])
def test_a_log_is_read(tmp_path: Path, query: str) -> None:
    log = tmp_path / "log.tsv"
    log.write_text(f"session\t{query}\tshown\tclicked\ns1\tq1\td1 d2 d3\td3 d1\n\ns1\tq2\td2\t\r\n")
    assert list(read_click_log(log)) == [page("q1", "d1 d2 d3", "d1 d3"), page("q2", "d2")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("s1\tq1\td1 d2", "line 2: 3 columns, expected 4, divided by tabs (session, qid, shown, clicked)"),
        ("s1 q1 d1 d1", "line 2: 1 columns, expected 4"),
        ("s1\t\td1\td1", "line 2: the column 'qid' is empty"),
        ("s1\tq1\t \t", "line 2: the column 'shown' is empty"),
        ("s1\tq1\td1 d2 d1\td2", "line 2: document 'd1' is shown twice"),
        ("s1\tq1\td1 d2\td9", "line 2: a click on document 'd9', which is not among those shown"),
    ],
)
def test_a_bad_line_is_refused_by_number(tmp_path: Path, line: str, told: str) -> None:
    log = tmp_path / "log.tsv"
    log.write_text(f"s0\tq1\td1\t\n{line}\n")
    with pytest.raises(InputError) as error:
        list(read_click_log(log))
    assert str(error.value).startswith(f"{log}, {told}")


def test_attraction_and_examination_are_those_worked_out_by_hand() -> None:
    """x is clicked on in 50% and 25% of the sessions at ranks 1 and 2, y in 80% and 40%: rank 2 is examined by half."""
    log = [
        *[page("q", "x y", "x")] * 300,
        *[page("q", "x y", "x y")] * 200,
        *[page("q", "x y", "y")] * 200,
        *[page("q", "x y")] * 300,
        *[page("q", "y x", "y")] * 600,
        *[page("q", "y x", "y x")] * 200,
        *[page("q", "y x", "x")] * 50,
        *[page("q", "y x")] * 150,
        *[page("other", "x")] * 4,
    ]
    model = logged_clicks(log)
    assert model.examination == pytest.approx([1, 0.5], abs=0.005)
    assert model.behaviour["q"]["x"] == (pytest.approx(0.5, abs=0.005), 0)
    assert model.behaviour["q"]["y"] == (pytest.approx(0.8, abs=0.005), 0)
    assert 0 < model.behaviour["other"]["x"][0] < 0.2  # never clicked on, but seen four times only
    assert model.others == (pytest.approx(np.mean([0.5, 0.8, model.behaviour["other"]["x"][0]]), abs=0.005), 0)
    assert model.asked == {"q": 2000, "other": 4}


def test_the_model_behind_a_simulated_log_is_found() -> None:
    rng = np.random.default_rng(0)
    attraction, examination = rng.uniform(0.05, 0.9, 30), np.array([1, 0.7, 0.5, 0.2])
    log = []
    for _ in range(30_000):
        shown = rng.permutation(30)[:4]
        clicked = shown[rng.random(4) < attraction[shown] * examination]
        log.append(page("q", " ".join(map(str, shown)), " ".join(map(str, clicked))))
    model = logged_clicks(log, depth=10)
    assert model.depth == 4
    assert model.examination == pytest.approx(examination, abs=0.02)
    found = [model.behaviour["q"][str(docid)][0] for docid in range(30)]
    assert found == pytest.approx(attraction, abs=0.05)


def test_ranks_below_the_depth_are_not_looked_at() -> None:
    model = logged_clicks([page("q", "x y z", "x"), page("q", "y x z", "z")], depth=2)
    assert model.depth == 2 and set(model.behaviour["q"]) == {"x", "y"}


def test_where_all_is_clicked_on_all_is_attractive() -> None:
    model = logged_clicks([page("q", "x y", "x y"), page("q", "y x", "x y")])
    assert model.examination == pytest.approx([1, 1]) and model.behaviour["q"]["x"][0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ([], "the click log is empty"),
        ([page("q", "x y"), page("q", "y x")], "no click on the first 10 documents of 2 sessions"),
        ([page("q", "x y", "x")] * 9, "no document both at rank 2 and at a rank"),
        ([page("q", "x y v w", "x"), page("q", "y x w v"), page("p", "x y")], "at rank 3 or 4 and"),
        ([page("q", "x y", "x"), page("p", "y x")], "no document both at rank 2"),  # another query, another attraction
    ],
)
def test_logs_that_tell_nothing_are_refused(log: list[Impression], told: str) -> None:
    with pytest.raises(InputError, match=told):
        logged_clicks(log)


def test_ranks_may_be_linked_over_others() -> None:
    assert logged_clicks([page("q", "x y z", "x"), page("q", "y x z"), page("q", "v z y")]).depth == 3
