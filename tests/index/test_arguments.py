"""What looks like an argument and is none is refused with what was expected; what is meant otherwise is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import InputError

QUERY, HITS = "a dog barks", [("1", 2.0), ("2", 1.0)]


@pytest.fixture(scope="module")
def model(tiny: Callable[..., MixLM]) -> MixLM:
    return tiny("bert", tokens=4)


@pytest.fixture
def index(model: MixLM, tmp_path: Path) -> TokenIndex:
    documents = [Document("1", "one dog"), Document("2", "two dogs")]
    return TokenIndex.build(documents, model, tmp_path / "tokens", progress=False)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda index: index.delete("12"), r"docids must be a list of strings, not one string: \['12'\]"),
        (lambda index: index.delete(b"12"), "docids must be a list of strings, not one string"),
        (lambda index: index.fetch("12"), "docids must be a list of strings, not one string"),
        (lambda index: index.delete([1]), "docids must be strings, not 1"),
        (lambda index: index.fetch(["1", None]), "docids must be strings, not None"),
        (lambda index: None in index, "docids must be strings, not None"),
        (lambda index: index.fetch(["1"], 2.5), "a budget of 2.5 tokens is not possible"),
    ],
)
def test_what_is_no_list_of_docids_is_refused(index: TokenIndex, call: Any, error: str) -> None:
    with pytest.raises(InputError, match=error):
        call(index)
    assert len(index) == 2


def test_arrays_and_numbers_of_numpy_are_taken(index: TokenIndex) -> None:
    assert index.fetch(np.array(["1", "3"]), np.int64(2)).tokens.shape[:2] == (1, 2)  # type: ignore[arg-type]


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
