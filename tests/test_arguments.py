"""What looks like an argument and is none is refused with what was expected; what is meant otherwise is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.measures import evaluate
from mixlm_rerank.scoring import FullTextScorer

QUERY, HITS = "a dog barks", [("1", 2.0), ("2", 1.0)]


@pytest.fixture(scope="module")
def model(tiny: Callable[..., MixLM]) -> MixLM:
    return tiny("bert", tokens=4)


@pytest.fixture
def index(model: MixLM, tmp_path: Path) -> TokenIndex:
    documents = [Document("1", "one dog"), Document("2", "two dogs")]
    return TokenIndex.build(documents, model, tmp_path / "tokens", progress=False)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, index: index.delete("12"),
        lambda model, index: index.delete(b"12"),
        lambda model, index: index.fetch("12"),
        lambda model, index: model.encode("dog"),
        lambda model, index: model.item_encoder.embed_queries("dog"),
        lambda model, index: model.item_encoder.query_states("dog"),
        lambda model, index: FullTextScorer(model).score(QUERY, "dog"),
        lambda model, index: Reranker(model, index)._scorer.score_batch("a", [index.fetch(["1"]).tokens]),
        lambda model, index: evaluate({"q": {"1": 1}}, {"q": []}, "nDCG@10"),
    ],
)
def test_one_string_is_no_list_of_strings(model: MixLM, index: TokenIndex, call: Any) -> None:
    with pytest.raises(InputError, match=r"must be a list of strings, not the string b?'.*': put it into a list"):
        call(model, index)
    assert len(index) == 2


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda model, index: index.delete([1]), r"docids must be strings, not 1 \(a int\)"),
        (lambda model, index: index.fetch(["1", None]), "docids must be strings, not None"),
        (lambda model, index: None in index, "docids must be strings, not None"),
        (lambda model, index: model.encode(["dog", None]), "texts must be strings, not None"),
        (lambda model, index: index.fetch(["1"], 2.5), "tokens must be a whole number, not 2.5"),
        (lambda model, index: Reranker(model, index, tokens=2.5), "tokens must be a whole number, not 2.5"),
        (lambda model, index: Reranker(model, index, verify_top=1.5), "verify_top must be a whole number, not 1.5"),
        (lambda model, index: Reranker(model, index).rerank(QUERY, HITS, 1.5), "top_k must be a whole number, not 1.5"),
        (lambda model, index: Reranker(model, index).rerank(QUERY, [(None, 1.0)]), "hit 0: a docid .* not None"),
        (lambda model, index: Reranker(model, index).rerank(QUERY, [(np.nan, 1)]), "hit 0: a docid .* not nan"),
        (lambda model, index: Reranker(model, index).rerank(QUERY, [(b"1", 1)]), "hit 0: a docid .* not b'1'"),
        (lambda model, index: Document(7, "text"), r"docid of a Document must be a string, not 7 \(a int\)"),
        (lambda model, index: Document("7", None), "text of a Document must be a string, not None"),
        (lambda model, index: Document("7", "", None), "title of a Document must be a string, not None"),
    ],
)
def test_what_is_of_another_type_is_named(model: MixLM, index: TokenIndex, call: Any, error: str) -> None:
    with pytest.raises(InputError, match=error):
        call(model, index)


def test_numbers_of_numpy_and_docids_that_are_numbers_are_taken(model: MixLM, index: TokenIndex) -> None:
    reranker = Reranker(model, index, tokens=np.int64(2))  # type: ignore[arg-type]
    assert reranker.rerank(QUERY, [(np.int64(1), 2.0), (2, 1.0)]) == reranker.rerank(QUERY, HITS)
    assert len(index.fetch(np.array(["1", "2"])).tokens) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [str, Path])
def test_an_index_may_be_named_by_its_path(model: MixLM, index: TokenIndex, kind: Any) -> None:
    assert Reranker(model, kind(index.path)).rerank(QUERY, HITS) == Reranker(model, index).rerank(QUERY, HITS)
    with pytest.raises(InputError, match="no token index at nowhere"):
        Reranker(model, kind("nowhere"))


@pytest.mark.parametrize("how", ["build", "add", "sync", "compare"])
@pytest.mark.parametrize(
    ("documents", "error"),
    [
        ("data/nf", r"not 'data/nf': for a corpus .* give mixlm_rerank.data.open_corpus\('data/nf'\)"),
        (Path("data/nf"), "not 'data/nf': for a corpus"),
        ([{"_id": "d1", "text": "dog"}], r"document 1 is a dict: expected mixlm_rerank.Document\(docid, text, title\)"),
        (["dog"], "document 1 is a str: expected"),
    ],
)
def test_what_is_no_document_is_named(
    model: MixLM, index: TokenIndex, tmp_path: Path, how: str, documents: Any, error: str
) -> None:
    with pytest.raises(InputError, match=error):
        if how == "build":
            TokenIndex.build(documents, model, tmp_path / "new", progress=False)
        elif how == "compare":
            index.compare(documents)
        else:
            getattr(index, how)(documents, model, progress=False)
