"""Candidate pools of a collection to check by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlm_rerank import Candidate, Document
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import FirstStage
from mixlm_rerank.training.pools import Pool, make_pools, read_pools, write_pools


class Stage(FirstStage):
    """A first stage that finds what it is told to."""

    def __init__(self, name: str, run: dict[str, list[tuple[str, float]]]) -> None:
        self.name, self._run = name, run

    def find(self, collection: Collection, hits: int) -> dict[str, list[Candidate]]:
        return {qid: [Candidate(*hit) for hit in found] for qid, found in self._run.items()}


def collection(qrels: dict[str, dict[str, int]]) -> Collection:
    corpus = [Document(f"d{number}", f"text {number}") for number in range(9)] + [Document("empty", " ")]
    return Collection("tiny", corpus, {qid: f"query {qid}" for qid in qrels}, qrels)


A = Stage("a", {"q": [("d1", 9.0), ("d2", 8.0), ("d3", 7.0)], "r": [("d4", 3.0), ("d5", 2.0)]})
B = Stage("b", {"q": [("d4", 0.9), ("d1", 0.8), ("d5", 0.7)]})


def test_relevant_documents_come_first_then_the_first_stages_in_turn() -> None:
    (pool,) = make_pools(collection({"q": {"d7": 1, "d2": 2, "d3": 0, "gone": 2, "empty": 1}}), [A, B], size=6)
    assert pool.docids == ["d2", "d7", "d1", "d4", "d3", "d5"]
    assert pool.judged == {"d7": 1, "d2": 2, "d3": 0}
    assert pool.relevant == ["d2", "d7"]


def test_size_bounds_a_pool_and_relevant_documents_fill_at_most_half_of_it() -> None:
    (pool,) = make_pools(collection({"q": {f"d{number}": 1 for number in (3, 5, 6, 7, 8)}}), [A, B], size=4)
    assert pool.docids == ["d3", "d5", "d1", "d4"]
    assert len(pool.judged) == 5 and pool.relevant == ["d3", "d5"]


def test_queries_to_learn_nothing_from_are_left_out() -> None:
    qrels = {"q": {"d1": 1}, "r": {"d4": 0}, "s": {"d4": 1}}  # r: nothing relevant; s: nothing else is found
    assert [pool.qid for pool in make_pools(collection(qrels), [A, B])] == ["q"]
    with pytest.raises(InputError, match="tiny: no query has a relevant document and another candidate"):
        list(make_pools(collection({"r": {"d4": 0}}), [A]))


def test_documents_of_another_corpus_or_without_text_are_no_candidates() -> None:
    some = Stage("some", {"q": [("empty", 9.0), ("gone", 8.0), ("d2", 7.0)]})
    (pool,) = make_pools(collection({"q": {"d1": 1}}), [some])
    assert pool.docids == ["d1", "d2"]
    other = Stage("other", {"q": [("gone", 8.0)]})
    with pytest.raises(InputError, match="other finds no document of tiny: do they belong together"):
        list(make_pools(collection({"q": {"d1": 1, "d2": 1}}), [A, other]))


def test_written_and_read_again_they_are_the_same(tmp_path: Path) -> None:
    pools = list(make_pools(collection({"q": {"d1": 1}, "r": {"d5": 2}}), [A, B]))
    write_pools(tmp_path / "pools.jsonl", pools)
    assert read_pools(tmp_path / "pools.jsonl") == pools


@pytest.mark.parametrize(
    "fields",
    [
        '{"qid": "q"}',
        '{"qid": "q", "query": "x", "docids": ["a"], "judged": {}}',
        '{"qid": "q", "query": "x", "docids": ["a", "a"], "judged": {}}',
        '{"qid": "q", "query": "x", "docids": ["a", "b"], "judged": [1]}',
        '{"qid": "q", "query": "x", "docids": ["a", "b"], "judged": {}, "more": 1}',
    ],
)
def test_a_malformed_pool_is_named_by_its_line(tmp_path: Path, fields: str) -> None:
    path = tmp_path / "pools.jsonl"
    write_pools(path, [Pool("q", "x", ["a", "b"], {"a": 1})])
    with path.open("a") as file:
        file.write(fields + "\n")
    with pytest.raises(InputError, match=r"pools\.jsonl, line 2: not a candidate pool"):
        read_pools(path)
