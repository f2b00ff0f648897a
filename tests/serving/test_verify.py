"""Requests whose best documents a cross-encoder reads in full: the ranking is that of Reranker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from mixlm_rerank import Document, MixLM, Reranker, ScoredDoc, TokenIndex
from mixlm_rerank.serving.app import Limits
from mixlm_rerank.serving.catalogue import Catalogue, FirstStage
from mixlm_rerank.systems.loading import load_cross_encoder

QUERY = "a dog barks at the moon"


@pytest.fixture(scope="module")
def judge(cross_encoder: Callable[..., Path]) -> Any:
    return load_cross_encoder(str(cross_encoder()))


@pytest.fixture(scope="module")
def url(
    served_for_all: Callable[..., str], model: MixLM, index: TokenIndex, first_stage: FirstStage, judge: Any
) -> str:
    """The first stage has the texts of the index ``docs``, none those of ``textless``."""
    indexes = {"docs": index, "textless": index}
    return served_for_all(Catalogue({"tiny": model}, indexes, {"docs": first_stage}, judge))


def ask(url: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/v2/rerank", content=json.dumps({"query": QUERY, "raw_scores": True, **body}), timeout=60)


def ranking(answer: httpx.Response) -> list[tuple[int, Any]]:
    assert answer.status_code == 200, answer.text
    return [(each["index"], pytest.approx(each["relevance_score"], abs=1e-4)) for each in answer.json()["results"]]


def placed(docs: list[ScoredDoc], docids: list[str]) -> list[tuple[int, float]]:
    return [(docids.index(doc.docid), doc.score) for doc in docs]


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_best_are_read_by_the_cross_encoder(
    url: str, model: MixLM, index: TokenIndex, documents: list[Document], judge: Any, most: int
) -> None:
    """Texts come with the request, or else from the Lucene index; a document that the index lacks stays last."""
    texts = {document.docid: document.content for document in documents}
    docids, bodies = [*texts, "unknown"], [*texts.values(), ""]
    docs = Reranker(model, index, verify_top=most, verify_with=judge, texts=texts).rerank(QUERY, docids)
    expected = placed(docs, docids)
    assert expected != placed(Reranker(model, index).rerank(QUERY, docids), docids)
    by_docid = {"document_ids": docids, "verify_top": most}
    assert ranking(ask(url, **by_docid, index="docs")) == expected
    assert ranking(ask(url, **by_docid, index="textless", documents=bodies, missing="last")) == expected
    docs = Reranker(model, verify_top=most, verify_with=judge).rank(QUERY, list(texts.values()))
    found = ranking(ask(url, documents=list(texts.values()), verify_top=most))
    assert found == [(int(doc.docid), doc.score) for doc in docs]
    assert ask(url, document_ids=docids[:2], index="docs", verify_top=most).json()["meta"]["timings_ms"]["verify"] > 0


def test_a_batch_of_requests_with_the_texts_given_back(url: str, documents: list[Document]) -> None:
    texts = [document.content for document in documents]
    one = {"query": QUERY, "documents": texts, "verify_top": 3, "top_n": 2, "return_documents": True}
    answer = httpx.post(f"{url}/v2/rerank/batch", json={"requests": [one, one]}, timeout=60).json()
    for found in answer["responses"]:
        expected = ask(url, **one, raw_scores=False).json()["results"]
        assert [each["document"]["text"] for each in found["results"]] == [texts[each["index"]] for each in expected]


def test_documents_of_an_index_of_passages_are_read_whole(
    served: Callable[..., str], model: MixLM, documents: list[Document], judge: Any, tmp_path: Path
) -> None:
    long = [Document(document.docid, f"{document.content} " * 20) for document in documents]
    index = TokenIndex.build(long, model, tmp_path / "passages", passages=True, progress=False)
    texts = {document.docid: document.content for document in long}
    docs = Reranker(model, index, verify_top=2, verify_with=judge, texts=texts).rerank(QUERY, list(texts))
    url = served(Catalogue({"tiny": model}, {"docs": index}, judge=judge))
    answer = ask(url, document_ids=list(texts), documents=list(texts.values()), missing="last", verify_top=2)
    assert ranking(answer) == placed(docs, list(texts))


def test_texts_that_are_read_count_against_the_limit_of_tokens(
    served: Callable[..., str], model: MixLM, index: TokenIndex, judge: Any
) -> None:
    url = served(Catalogue({"tiny": model}, {"docs": index}, judge=judge), Limits(tokens=100))
    body = {"document_ids": ["d1", "d2"], "documents": ["a dog " * 300] * 2, "missing": "last"}
    assert ask(url, **body).status_code == 200
    answer = ask(url, **body, verify_top=2)
    assert answer.status_code == 413 and "the texts that verify_top reads have about" in answer.json()["message"]


def test_many_texts_are_read_in_pieces(
    served: Callable[..., str], model: MixLM, documents: list[Document], judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a piece holds at least one document; at 64 positions these are several pieces."""
    monkeypatch.setattr("mixlm_rerank.serving.batching.LARGEST_ON_CPU", 64)
    url = served(Catalogue({"tiny": model}, {}, judge=judge))
    texts = [f"{document.content} {'a dog ' * 600}" for document in documents]
    docs = Reranker(model, verify_top=12, verify_with=judge).rank(QUERY, texts)
    assert ranking(ask(url, documents=texts, verify_top=12)) == [(int(doc.docid), doc.score) for doc in docs]
    (verified,) = re.findall(r'mixlm_stage_seconds_count\{stage="verify"\} (\S+)', httpx.get(f"{url}/metrics").text)
    assert float(verified) > 1


def test_without_a_cross_encoder_the_model_reads_them(
    searched: str, model: MixLM, index: TokenIndex, documents: list[Document]
) -> None:
    texts = {document.docid: document.content for document in documents}
    docs = Reranker(model, index, verify_top=2, texts=texts).rerank(QUERY, list(texts))
    assert ranking(ask(searched, document_ids=list(texts), verify_top=2)) == placed(docs, list(texts))


def test_what_cannot_be_read_is_refused(url: str) -> None:
    answer = ask(url, document_ids=["d1", "d2"], index="textless", verify_top=1)
    assert answer.status_code == 400 and "which verify_top reads: send documents" in answer.json()["message"]
    answer = ask(url, document_ids=["d1"], index="docs", verify_top=1, score_threshold=0.5)
    assert answer.status_code == 400 and "score_threshold and verify_top" in answer.json()["message"]
    assert ask(url, document_ids=["d1"], index="docs", verify_top=-1).status_code == 422
    assert ranking(ask(url, document_ids=["unknown"], index="textless", verify_top=1))  # nothing to read
    found = ranking(ask(url, query="half a \ud800", documents=["a dog \ud800", "a cat"], verify_top=2))
    assert len(found) == 2


@pytest.mark.processes
def test_the_command_opens_the_cross_encoder(
    start: Callable[..., Any],
    served_folder: tuple[Path, Path],
    documents: list[Document],
    cross_encoder: Callable[..., Path],
    judge: Any,
) -> None:
    """A single document: its score is the cross-encoder's."""
    url, text = start(served_folder[1], "--verify-with", str(cross_encoder())).url, documents[0].content
    ((_, score),) = ranking(ask(url, documents=[text], verify_top=1))
    assert score == judge.predict([(QUERY, text)], activation_fn=torch.nn.Identity())[0]
