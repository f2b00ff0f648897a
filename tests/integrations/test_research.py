"""PyTerrier, BEIR, mteb: their own conformance checks and their own ways of evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mixlm_rerank import Candidate, Document, MixLM, Reranker
from mixlm_rerank.errors import InputError, MissingDocuments
from mixlm_rerank.integrations.beir import MixLMRerank
from mixlm_rerank.integrations.mteb import MixLMSearch
from mixlm_rerank.integrations.pyterrier import MixLMReranker

pt = pytest.importorskip("pyterrier")


def first_stage(queries: dict[str, str], docids: list[str]) -> pd.DataFrame:
    rows = [
        (qid, query, docid, float(-place), place)
        for qid, query in queries.items()
        for place, docid in enumerate(docids)
    ]
    return pd.DataFrame(rows, columns=["qid", "query", "docno", "score", "rank"])


QUERIES = {"q1": "a dog barks", "q2": "bread"}


def test_pyterriers_own_conformance_suite(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    import unittest

    monkeypatch.setenv("PT_TEST_TRANSFORMER_REPORTS", "0")
    case = pt.testing.transformer_test_class(lambda: MixLMReranker(reranker))
    result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    assert result.wasSuccessful() and result.testsRun >= 2
    assert sorted(pt.inspect.transformer_inputs(MixLMReranker(reranker))[0]) == ["docno", "qid", "query"]


def test_pyterrier_in_a_pipeline(reranker: Reranker, documents: list[Document]) -> None:
    """After any retriever, cut before and after; other columns stay."""
    docids = [document.docid for document in documents]
    frame = first_stage(QUERIES, docids).assign(extra="kept")
    pipeline = pt.Transformer.from_df(frame) % 4 >> MixLMReranker(reranker) % 2
    found = pipeline(pd.DataFrame(list(QUERIES.items()), columns=["qid", "query"]))
    for qid, query in QUERIES.items():
        mine = found[found["qid"] == qid].sort_values("rank")
        expected = reranker.rerank(query, docids[:4], 2)
        assert mine["docno"].tolist() == [doc.docid for doc in expected]
        assert mine["score"].tolist() == pytest.approx([doc.score for doc in expected], abs=2e-5)
        assert set(mine["extra"]) == {"kept"}


def test_pyterrier_missing_columns_and_documents_twice(reranker: Reranker) -> None:
    frame = first_stage(QUERIES, ["d1", "d2"])
    with pytest.raises(pt.validate.InputValidationError):
        MixLMReranker(reranker)(frame.drop(columns="query"))
    with pytest.raises(InputError, match="'d1' occurs twice"):
        MixLMReranker(reranker)(first_stage(QUERIES, ["d1", "d1"]))
    passages = first_stage({"q1": "a dog"}, ["new", "new"]).assign(text=["cats sleep", "a dog barks"])
    read = MixLMReranker(Reranker(reranker.model))
    alone = [float(read(passages[row : row + 1])["score"].iloc[0]) for row in (0, 1)]
    assert read(passages)["score"].tolist() == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("nothing", [float("nan"), None, pd.NA], ids=repr)
def test_pyterrier_rows_without_docno_or_query(reranker: Reranker, nothing: object) -> None:
    """As a merge leaves them."""
    frame = first_stage(QUERIES, ["d1", "d2"])
    frame["query"] = frame["query"].astype(object)
    frame.loc[frame["qid"] == "q2", "query"] = nothing
    with pytest.warns(UserWarning, match="an empty query keeps the first stage's order: 'q2'"):
        found = MixLMReranker(reranker)(frame)
    assert found[found["qid"] == "q2"].sort_values("rank")["docno"].tolist() == ["d1", "d2"]
    frame["docno"] = frame["docno"].astype(object)
    frame.loc[1, "docno"] = nothing
    with pytest.raises(InputError, match=rf"hit 1 has no docid \({nothing!r}\)"):
        MixLMReranker(reranker)(frame)


def test_pyterrier_says_that_nothing_was_scored(reranker: Reranker) -> None:
    with pytest.warns(UserWarning, match="none of the candidates was scored"):
        MixLMReranker(reranker)(first_stage(QUERIES, ["x", "y"]))


def test_beir_cuts_before_it_reranks(reranker: Reranker, documents: list[Document]) -> None:
    first = {"q1": {document.docid: float(-place) for place, document in enumerate(documents)}, "q2": {}}
    found = MixLMRerank(reranker).rerank({}, QUERIES, first, top_k=3)
    expected = reranker.rerank(QUERIES["q1"], [document.docid for document in documents[:3]])
    assert found == {"q1": {doc.docid: doc.score for doc in expected}, "q2": {}}
    with pytest.raises(InputError, match="no query of that qid"):
        MixLMRerank(reranker).rerank({}, {}, first, top_k=3)
    with pytest.raises(InputError, match="top_k must be at least 1"):
        MixLMRerank(reranker).rerank({}, QUERIES, first, top_k=0)


@pytest.fixture
def task(documents: list[Document]) -> Any:
    """A real mteb Reranking task of the small collection."""
    import mteb
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    class Tiny(AbsTaskRetrieval):
        metadata = mteb.TaskMetadata(
            name="TinyReranking",
            description="a tiny collection",
            dataset={"path": "none/none", "revision": "1"},
            type="Reranking",
            category="t2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, *arguments: Any, **options: Any) -> None:
            rows = [{"id": doc.docid, "title": doc.title, "text": doc.text} for doc in documents]
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list([*rows, {"id": "blank", "title": "", "text": ""}]),
                        "queries": Dataset.from_list([{"id": qid, "text": text} for qid, text in QUERIES.items()]),
                        "relevant_docs": {"q1": {"d1": 1}, "q2": {"d4": 1}},
                        "top_ranked": {qid: [*(doc.docid for doc in documents), "blank"] for qid in QUERIES},
                    }
                }
            }
            self.data_loaded = True

    return Tiny()


def test_mteb_evaluates_it(
    model: MixLM, reranker: Reranker, documents: list[Document], task: Any, tmp_path: Path
) -> None:
    import mteb
    from mteb.models.models_protocols import SearchProtocol

    search = MixLMSearch(model, tmp_path / "indexes")
    assert isinstance(search, SearchProtocol)
    found = mteb.evaluate(search, task, cache=None, overwrite_strategy="always")
    scores = found.task_results[0].scores["test"][0]
    places = []
    for query, wanted in zip(QUERIES.values(), ("d1", "d4"), strict=True):
        ranking = [doc.docid for doc in reranker.rerank(query, [document.docid for document in documents])]
        places.append(1 + ranking.index(wanted))
    assert scores["mrr_at_10"] == pytest.approx(sum(1 / place for place in places) / 2, abs=1e-5)


def test_mteb_tells_models_and_budgets_apart(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    """It keeps results by the revision: another ranker must not be given those of the first."""
    model = tiny("bert", tokens=4)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.readout.score.bias.add_(1.0)
    searches = [MixLMSearch(model, tmp_path), MixLMSearch(model, tmp_path, tokens=1), MixLMSearch(other, tmp_path)]
    assert len({search.mteb_model_meta.revision for search in searches}) == 3
    assert MixLMSearch(model, tmp_path, tokens=4).mteb_model_meta.revision == searches[0].mteb_model_meta.revision


def test_mteb_queries_have_their_instruction(model: MixLM, reranker: Reranker, tmp_path: Path) -> None:
    search = MixLMSearch(model, tmp_path)
    search._index = reranker.index  # type: ignore[assignment]
    rows = [{"id": "q", "text": "dogs", "instruction": "that bark at the moon"}, {"id": "r", "text": "dogs"}]
    found = search.search(rows, top_k=6, top_ranked={"q": ["d1", "d2", "d3"], "r": ["d1", "d2", "d3"]})
    for qid, query in (("q", "dogs that bark at the moon"), ("r", "dogs")):
        docs = reranker.rerank(query, ["d1", "d2", "d3"])
        assert found[qid] == pytest.approx({doc.docid: doc.score for doc in docs}, abs=1e-4)


CONVERSATION = [{"role": "user", "content": "dogs"}, {"role": "assistant", "content": "which?"}]


@pytest.mark.parametrize(
    ("row", "query"),
    [
        ({"text": ["dogs", "that bark"]}, "dogs; that bark"),
        ({"text": CONVERSATION}, "user: dogs; assistant: which?"),
        ({"text": CONVERSATION, "instruction": "find"}, "find user: dogs; assistant: which?"),
    ],
)
def test_mteb_conversations_are_read_as_mteb_reads_them(
    model: MixLM, reranker: Reranker, tmp_path: Path, row: dict[str, Any], query: str
) -> None:
    from datasets import Dataset
    from mteb._create_dataloaders import _convert_conv_history_to_query

    assert Dataset.from_list([row]).map(_convert_conv_history_to_query)["text"] == [query]
    search = MixLMSearch(model, tmp_path)
    search._index = reranker.index  # type: ignore[assignment]
    found = search.search([{"id": "q", **row}], top_k=6, top_ranked={"q": ["d1", "d2", "d3"]})
    docs = reranker.rerank(query, ["d1", "d2", "d3"])
    assert found["q"] == pytest.approx({doc.docid: doc.score for doc in docs}, abs=1e-4)


def test_an_empty_query_ends_no_task_of_mteb(model: MixLM, reranker: Reranker, tmp_path: Path) -> None:
    search = MixLMSearch(model, tmp_path)
    search._index = reranker.index  # type: ignore[assignment]
    rows: list[dict[str, Any]] = [{"id": "q", "text": ""}, {"id": "r", "text": []}, {"id": "s", "text": "dogs"}]
    with pytest.warns(UserWarning, match="an empty query keeps the first stage's order: 'q', 'r'"):
        found = search.search(rows, top_k=2, top_ranked=dict.fromkeys("qrs", ["d3", "d1", "d2"]))
    assert list(found["q"]) == list(found["r"]) == ["d3", "d1"]
    with pytest.raises(InputError, match="hits must be a list of hits, not 'd1'"):
        search.search(rows[2:], top_k=2, top_ranked={"s": "d1"})  # type: ignore[dict-item]


def test_texts_that_a_merge_or_a_corpus_left_empty(model: MixLM, documents: list[Document]) -> None:
    """NaN under PyTerrier, None under BEIR: no text."""
    frame = pd.DataFrame(
        [("q", "a dog", "d1", "a dog barks"), ("q", "a dog", "d2", float("nan"))],
        columns=["qid", "query", "docno", "text"],
    )
    with pytest.raises(MissingDocuments, match="d2"):
        MixLMReranker(Reranker(model))(frame)
    found = MixLMRerank(Reranker(model)).rerank(
        {"d1": {"title": "Dogs", "text": None}, "d2": {"title": None, "text": "cats"}},  # type: ignore[dict-item]
        {"q": "a dog"},
        {"q": {"d1": 1.0, "d2": 0.5}},
        2,
    )
    texts = [Candidate("d1", 1.0, Document("", "", "Dogs").content), Candidate("d2", 0.5, "cats")]
    assert found["q"] == {doc.docid: doc.score for doc in Reranker(model).rerank("a dog", texts)}


def test_mteb_without_candidates_says_what_to_do(model: MixLM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task.convert_to_reranking"):
        MixLMSearch(model, tmp_path).search([], top_k=10)
    with pytest.raises(InputError, match="index.* comes before search"):
        MixLMSearch(model, tmp_path).search([], top_k=10, top_ranked={})
