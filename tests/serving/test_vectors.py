"""A server whose documents are vectors of the user's own: by docid it ranks, texts are refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from mixlm_rerank import MixLM, Reranker, TokenIndex
from mixlm_rerank.serving.catalogue import Catalogue

DOCIDS = ["a", "b", "c"]


def test_docids_are_ranked_and_texts_refused(
    tiny: Callable[..., MixLM], served: Callable[..., str], tmp_path: Path
) -> None:
    model = tiny("bert", vectors=3, tokens=2)
    vectors = np.random.default_rng(0).standard_normal((3, 2, 3))
    index = TokenIndex.from_vectors(DOCIDS, vectors, model, tmp_path / "index", progress=False)
    url = served(Catalogue({"pictures": model}, {"shop": index}))

    def post(**body: object) -> httpx.Response:
        return httpx.post(f"{url}/v2/rerank", json={"query": "a dog", "raw_scores": True, **body}, timeout=30)

    found = post(document_ids=[*DOCIDS, "unknown"]).json()["results"]
    expected = Reranker(model, index).rerank("a dog", DOCIDS)
    assert [result["document_id"] for result in found] == [*(doc.docid for doc in expected), "unknown"]
    scores = [doc.score for doc in expected]
    assert [result["relevance_score"] for result in found[:3]] == pytest.approx(scores, abs=1e-4)
    assert found[3]["missing"]
    captioned = post(document_ids=DOCIDS, documents=["one", "two", "three"], missing="last")
    assert captioned.json()["results"][0]["document_id"] == expected[0].docid
    for texts in ({"documents": ["one"]}, {"document_ids": ["a"], "documents": ["one"]}):
        refused = post(**texts)
        assert refused.status_code == 400
        assert "encodes no texts, its documents are vectors: give an index" in refused.json()["message"]
    assert httpx.get(f"{url}/health").status_code == httpx.get(f"{url}/ready").status_code == 200
