"""Runs: read as trec_eval reads them, and written so that every tool sees the order that we mean."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_rerank import Candidate, ScoredDoc
from mixlm_rerank.data import read_run, write_run
from mixlm_rerank.errors import InputError

SCORES = st.lists(st.floats(-1e9, 1e9) | st.sampled_from([0.0, -0.0, 1.0, 1.0000004, 15.9999996, -16.0]), min_size=1)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], dict[str, list[Candidate]]]:
    """``run(text)``: the candidates of a run file with this text."""

    def read(text: str) -> dict[str, list[Candidate]]:
        (tmp_path / "run").write_text(text)
        return read_run(tmp_path / "run")

    return read


def ranking(scores: list[float]) -> list[ScoredDoc]:
    """Documents in an order that ties broken by docid would not give."""
    docids = [f"d{number}" for number in range(len(scores))]
    random.Random(0).shuffle(docids)
    return [
        ScoredDoc(docid, score, rank, 0.0) for rank, (docid, score) in enumerate(zip(docids, scores, strict=True), 1)
    ]


def test_trec_candidates_are_ordered_by_score_not_by_rank_or_line(run: Callable) -> None:
    """Equal scores stay as they stand in the file."""
    found = run("q1 Q0 d1 1 0.5 x\n2 Q0 7 1 1e1 x\r\nq1\tQ0\td3\t2\t0.5\tx\n\nq1 Q0 d2 3 2.5 x\n")
    assert found == {
        "q1": [Candidate("d2", 2.5), Candidate("d1", 0.5), Candidate("d3", 0.5)],
        "2": [Candidate("7", 10.0)],
    }


@pytest.mark.parametrize("ranks", [(1, 2, 4), (0, 1, 2), (-2, -1, 0)])
def test_msmarco_candidates_are_ordered_by_rank(run: Callable, ranks: tuple[int, ...]) -> None:
    """Wherever ranks begin (PyTerrier's at 0), no two documents tie."""
    first, second, third = ranks
    found = run(f"q1\td2\t{second}\nq1\td1\t{first}\nq1\td4\t{third}\nq2\td9\t7\n")
    assert found == {
        "q1": [Candidate("d1", 1.0), Candidate("d2", 1 / 2), Candidate("d4", 1 / 3)],
        "q2": [Candidate("d9", 1.0)],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 Q0 d1 1 0.5\n", r"run, line 1: 5 columns, expected 6 \(.*\) or 3 \(.*\)"),
        ("q1 Q0 d1 1 0.5 x\nq1 Q0 d2 2 0.4\n", r"run, line 2: 5 columns, expected 6 \(qid Q0 docid rank score tag\)"),
        ("q1 d1 1\nq1 Q0 d2 2 0.4 x\n", r"run, line 2: 6 columns, expected 3 \(qid docid rank\)"),
        ("q1 Q0 d1 1 high x\n", "run, line 1: the score 'high' is not a number"),
        ("q1 Q0 d1 1 nan x\n", "run, line 1: the score 'nan' is not finite"),
        ("q1 Q0 d1 1 0.5 x\n\nq1 Q0 d2 2 -inf x\n", "run, line 3: the score '-inf' is not finite"),
        ("q1 d1 first\n", "run, line 1: the rank 'first' is not a number"),
        ("q1 Q0 d1 1 2 x\nq2 Q0 d1 1 2 x\nq1 Q0 d1 2 1 x\n", "run, line 3: document 'd1' occurs twice for query 'q1'"),
        ("\n", "run holds no candidates"),
    ],
)
def test_bad_runs(run: Callable, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(text)


def test_a_written_trec_run(tmp_path: Path) -> None:
    docs = [ScoredDoc("d2", 1.25, 1, 0.0), ScoredDoc("d1", 1.25, 2, 0.0), ScoredDoc("é", -3.0000001, 3, 0.0)]
    write_run(tmp_path / "run", {"q1": docs, "q2": []}, tag="mine")
    expected = "q1 Q0 d2 1 1.250000 mine\nq1 Q0 d1 2 1.249999 mine\nq1 Q0 é 3 -3.000000 mine\n"
    assert (tmp_path / "run").read_text(encoding="utf-8") == expected


def test_a_written_msmarco_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"q1": ranking([2.0, 2.0]), "7": ranking([1.0])}, msmarco=True)
    assert [line.split("\t")[::2] for line in (tmp_path / "run").read_text().splitlines()] == [
        ["q1", "1"],
        ["q1", "2"],
        ["7", "1"],
    ]
    assert [hit.docid for hit in read_run(tmp_path / "run")["q1"]] == [doc.docid for doc in ranking([2.0, 2.0])]


@given(SCORES)
def test_written_scores_fall_strictly_whatever_the_scores(scores: list[float]) -> None:
    """As decimals and as float32, which is what trec_eval compares: equal scores, and scores closer than 1e-6."""
    docs = ranking(sorted(scores, reverse=True))
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "run", {"q": docs})
        lines = (Path(folder) / "run").read_text().splitlines()
        back = read_run(Path(folder) / "run")["q"]
    written = np.array([line.split()[4] for line in lines], dtype=np.float64)
    assert (np.diff(written) < 0).all()
    assert (np.diff(written.astype(np.float32)) < 0).all()
    assert [hit.docid for hit in back] == [doc.docid for doc in docs]


@given(st.lists(st.floats(-15, 15), min_size=1, unique_by=lambda score: round(score, 5)))
def test_written_scores_are_the_scores_where_these_differ(scores: list[float]) -> None:
    docs = ranking(sorted(scores, reverse=True))
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "run", {"q": docs})
        back = read_run(Path(folder) / "run")["q"]
    np.testing.assert_allclose([hit.score for hit in back], [doc.score for doc in docs], rtol=0, atol=0.6e-6)


@pytest.mark.parametrize("score", [0.5, 20.0, -20.0, 1e6])
def test_trec_eval_sees_the_order_of_tied_scores(tmp_path: Path, score: float) -> None:
    """Left tied, docid 'b' would come first."""
    write_run(tmp_path / "run", {"q": [ScoredDoc("a", score, 1, 0.0), ScoredDoc("b", score, 2, 0.0)]})
    qrels = [ir_measures.Qrel("q", "a", 1)]
    values = ir_measures.calc_aggregate([ir_measures.AP], qrels, ir_measures.read_trec_run(str(tmp_path / "run")))
    assert values == {ir_measures.AP: 1.0}


@pytest.mark.parametrize("msmarco", [False, True])
@pytest.mark.parametrize(
    ("qid", "docid", "named"),
    [("q 1", "d1", "qid 'q 1'"), ("q1", "d\t1", "docid 'd.*1'"), ("q1", " d1", "docid ' d1'"), ("q1", "", "docid ''")],
)
def test_ids_that_are_no_single_column_are_refused(
    tmp_path: Path, qid: str, docid: str, named: str, msmarco: bool
) -> None:
    with pytest.raises(InputError, match=f"the {named} cannot stand in a run: it is empty or holds white space"):
        write_run(tmp_path / "run", {qid: [ScoredDoc(docid, 1.0, 1, 0.0)]}, msmarco=msmarco)
    assert not list(tmp_path.iterdir())


def test_a_tag_with_white_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the tag 'my tag' cannot stand in a run"):
        write_run(tmp_path / "run", {"q1": ranking([1.0])}, tag="my tag")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf"), 1e39])
def test_scores_that_are_not_finite_in_float32_are_refused(tmp_path: Path, score: float) -> None:
    with pytest.raises(InputError, match=r"the score .* of document 'd\d' is not finite"):
        write_run(tmp_path / "run", {"q1": ranking([score])})
