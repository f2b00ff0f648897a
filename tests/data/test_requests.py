"""rank_llm's request files: read with the candidates' texts, written back in the new order with nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Candidate, ScoredDoc
from mixlm_rerank.data import Requests, read_requests, write_requests
from mixlm_rerank.errors import InputError

HIT = {"docid": "d1", "score": 2.5, "doc": {"contents": "It barks."}}
FIRST = {
    "query": {"text": "who barks", "qid": 7, "lang": "en"},
    "candidates": [
        HIT,
        {"docid": 2, "score": 2, "doc": {"segment": "Cats.", "title": "Cat", "url": "x"}},
        {"docid": "d3", "score": -1.5, "doc": "bare text"},
        {"docid": "d4", "score": "0.5"},
    ],
    "note": "é",
}
SECOND = {"query": {"text": "bread", "qid": "q2"}, "candidates": []}


@pytest.fixture
def requests(tmp_path: Path) -> Callable[..., Requests]:
    """``requests(line, line)``: the requests of a file with these lines (objects, or raw text)."""

    def read(*rows: Any) -> Requests:
        path = tmp_path / "requests.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return read_requests(path)

    return read


def test_queries_and_candidates_with_their_texts(requests: Any) -> None:
    found = requests(FIRST, SECOND)
    assert found.queries == {"7": "who barks", "q2": "bread"}
    assert found.candidates == {
        "7": [
            Candidate("d1", 2.5, "It barks."),
            Candidate("2", 2.0, "Cat. Cats."),
            Candidate("d3", -1.5, "bare text"),
            Candidate("d4", 0.5, None),
        ],
        "q2": [],
    }


def test_written_back_in_the_new_order_with_new_scores_and_all_else_kept(requests: Any, tmp_path: Path) -> None:
    found = requests(FIRST, SECOND)
    results = {"7": [ScoredDoc("d3", 1.5, 1, -1.5), ScoredDoc("2", -10001.0, 2, 2.0, missing=True)], "q2": []}
    write_requests(tmp_path / "out.jsonl", found, results)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    _, second, third, _ = FIRST["candidates"]
    unscored = second | {"score": -10001.0, "missing": True}
    assert lines == [FIRST | {"candidates": [third | {"score": 1.5}, unscored]}, SECOND]
    assert HIT["score"] == 2.5  # the caller's objects are left as they were
    again = read_requests(tmp_path / "out.jsonl")
    assert [hit.docid for hit in again.candidates["7"]] == ["d3", "2"]
    assert again.queries == found.queries


def test_half_a_surrogate_pair_survives(requests: Any, tmp_path: Path) -> None:
    """JSON can hold it, UTF-8 cannot."""
    found = requests('{"query": {"text": "x \\ud83d", "qid": "q"}, "candidates": [{"docid": "d", "score": 1}]}')
    write_requests(tmp_path / "out.jsonl", found, {"q": [ScoredDoc("d", 1.0, 1, 1.0)]})
    assert read_requests(tmp_path / "out.jsonl").queries == {"q": "x \ud83d"}


def with_hit(**changes: Any) -> dict[str, Any]:
    return SECOND | {"candidates": [HIT, {"docid": "d2", "score": 1.0} | changes]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object, not list"),
        ({}, 'expected {"query": {"text", "qid"}, "candidates"'),
        ({"query": "bread", "candidates": []}, 'expected {"query"'),
        ({"query": {"text": "bread"}, "candidates": []}, 'expected {"query"'),
        ({"query": {"text": "bread", "qid": "q2"}}, 'expected {"query"'),
        (SECOND | {"candidates": None}, 'expected {"query"'),
        (SECOND | {"candidates": HIT}, 'expected {"query"'),
        (SECOND | {"candidates": ["d1"]}, 'expected {"query"'),
        (SECOND | {"candidates": [{"docid": "d1"}]}, 'expected {"query"'),
        (with_hit(score=None), 'expected {"query"'),
        (with_hit(score="high"), 'expected {"query"'),
        (with_hit(score=10**400), 'expected {"query"'),
        (with_hit(score=float("nan")), "a score is not finite"),
        (with_hit(docid="d1"), "a document occurs twice for query 'q2'"),
        (with_hit(doc={"url": "x"}), r"expected a text .* found url \(str\)"),
        (with_hit(doc={"text": 5}), r"expected a text .* found text \(int\)"),
        (with_hit(doc=5), "doc must be a string or an object, not int"),
        (with_hit(doc=["text"]), "doc must be a string or an object, not list"),
        ({"query": {"text": 5, "qid": "q2"}, "candidates": []}, 'expected {"query"'),
        ({"query": {"text": "bread", "qid": None}, "candidates": []}, 'expected {"query"'),
        (with_hit(docid=None), 'expected {"query": .*, ids as strings or integers'),
        (with_hit(docid=2.0), 'expected {"query"'),
        (FIRST, "qid '7' occurs twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
def test_a_bad_line_is_named(requests: Any, line: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"requests.jsonl, line 2: {message}"):
        requests(FIRST, line)


def test_a_file_without_requests_is_refused(requests: Any) -> None:
    with pytest.raises(InputError, match="requests.jsonl holds no requests"):
        requests("")
