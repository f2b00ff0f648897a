"""A long document is ranked by its best passage (MaxP), out of an index or out of its text, in Python and over HTTP."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.index.encoding import Reader
from mixlm_rerank.scoring import FullTextScorer, ReferenceScorer
from mixlm_rerank.serving.app import Limits, create_app
from mixlm_rerank.serving.catalogue import Catalogue

QUERY = "a dog barks at the moon"
WORDS = ["mail", "bread", "salt.", "cats", "sleep", "earth.", "rock", "flour", "dog", "moon"]
DOCUMENTS = [
    Document(f"d{number}", " ".join(random.Random(number).choices(WORDS, k=words)))
    for number, words in enumerate([5, 300, 40, 3, 120, 80])
]
HITS = [(document.docid, 9.0 - place) for place, document in enumerate(DOCUMENTS)]


@pytest.fixture(scope="module")
def model(tiny: Callable[..., MixLM]) -> MixLM:
    return tiny("bert")


@pytest.fixture(scope="module")
def index(model: MixLM, tmp_path_factory: pytest.TempPathFactory) -> TokenIndex:
    folder = tmp_path_factory.mktemp("passages") / "tokens"
    return TokenIndex.build(DOCUMENTS, model, folder, precision="float32", passages=True, progress=False)


def passages(model: MixLM) -> dict[str, tuple[list[str], torch.Tensor, torch.Tensor]]:
    """docid -> its passages, their embedding tokens and scores, the plain way."""
    found = {}
    for reading in Reader(model, passages=True).readings(DOCUMENTS):
        tokens = torch.from_numpy(model.encode(reading.texts))
        found[reading.document.docid] = reading.texts, tokens, ReferenceScorer(model).score(QUERY, tokens)
    return found


def test_the_best_passage_counts(model: MixLM, index: TokenIndex) -> None:
    expected = {docid: float(scores.max()) for docid, (_, _, scores) in passages(model).items()}
    docs = Reranker(model, index).rerank(QUERY, [*HITS, ("unknown", 0.5)])
    assert {doc.docid: doc.score for doc in docs[:6]} == pytest.approx(expected, abs=1e-3)
    assert [doc.missing for doc in docs] == [False] * 6 + [True]
    assert index.info().records > 20


def test_a_text_is_read_in_passages_as_the_index_reads_it(model: MixLM, index: TokenIndex, tmp_path: Path) -> None:
    part = TokenIndex.build(DOCUMENTS[2:4], model, tmp_path / "part", precision="float32", passages=True)
    texts = {document.docid: document.text for document in DOCUMENTS} | {"blank": " "}
    hits = [*HITS, ("blank", 0.5)]
    docs = Reranker(model, part, missing="encode", texts=texts).rerank(QUERY, hits)
    assert docs == Reranker(model, index).rerank(QUERY, hits)


def test_full_text_is_read_in_passages_too(model: MixLM, index: TokenIndex) -> None:
    """With the residual of the passage that is best by its embedding tokens."""
    texts = {document.docid: document.text for document in DOCUMENTS}
    docs = Reranker(model, index, verify_top=6, texts=texts).rerank(QUERY, HITS)
    expected = {}
    for docid, (parts, tokens, scores) in passages(model).items():
        best = tokens[[int(scores.argmax())] * len(parts)]
        expected[docid] = float(FullTextScorer(model).score(QUERY, parts, best).max())
    assert {doc.docid: doc.score for doc in docs} == pytest.approx(expected, abs=1e-3)


def test_a_server_ranks_by_the_best_passage(model: MixLM, index: TokenIndex) -> None:
    with TestClient(create_app(lambda: Catalogue({"tiny": model}, {"docs": index}), Limits())) as client:
        docids = [docid for docid, _ in HITS]
        body = {"query": QUERY, "document_ids": docids, "raw_scores": True}
        answer = client.post("/v2/rerank", json=body).json()
    found = {docids[result["index"]]: result["relevance_score"] for result in answer["results"]}
    expected = {doc.docid: doc.score for doc in Reranker(model, index).rerank(QUERY, HITS)}
    assert found == pytest.approx(expected, abs=1e-4)
