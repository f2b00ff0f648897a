"""The page's own endpoint: the first stage and MixLM over the same hits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import httpx
import pytest

from mixlm_rerank import MixLM, Reranker, TokenIndex
from mixlm_rerank.serving.catalogue import Catalogue, FirstStage
from mixlm_rerank.serving.page import SNIPPET


def test_both_rankings_of_the_same_hits(
    searched: str, model: MixLM, index: TokenIndex, first_stage: FirstStage
) -> None:
    query = "a dog barks at the moon"
    answer = httpx.get(f"{searched}/search", params={"q": query, "hits": 3}).json()
    hits = asyncio.run(first_stage.search(query, 3))
    assert [found["docid"] for found in answer["first_stage"]] == [hit.docid for hit in hits]
    docs = Reranker(model, index).rerank(query, hits)
    assert [(found["docid"], pytest.approx(found["score"], abs=1e-4)) for found in answer["reranked"]] == [
        (doc.docid, doc.score) for doc in docs
    ]
    places = {hit.docid: place for place, hit in enumerate(hits, 1)}
    assert all(found["was"] == places[found["docid"]] for found in answer["reranked"])
    assert answer["hits"] == 3 and set(answer["timings_ms"]) == {"first_stage", "rerank", "texts"}
    assert answer["first_stage"][0]["text"].startswith("Dogs")


def test_odd_queries(searched: str) -> None:
    assert httpx.get(f"{searched}/search", params={"q": "xyzzy"}).json()["hits"] == 0
    assert httpx.get(f"{searched}/search", params={"q": " "}).status_code == 400
    assert httpx.get(f"{searched}/search", params={"q": "dog", "index": "other"}).status_code == 404
    assert httpx.get(f"{searched}/search", params={"q": "dog", "hits": 0}).status_code == 422
    (found,) = httpx.get(f"{searched}/search", params={"q": "zebra"}).json()["reranked"]
    assert len(found["text"]) <= SNIPPET + 2 and found["text"].endswith(" …")


def test_hits_that_the_index_lacks_have_no_score(searched: str) -> None:
    """The text "long" is in the first stage's index alone."""
    (found,) = httpx.get(f"{searched}/search", params={"q": "zebra"}).json()["reranked"]
    assert found["docid"] == "long" and found["score"] is None


def test_the_documentation_needs_nothing_from_elsewhere(
    served: Callable[..., str], model: MixLM, index: TokenIndex
) -> None:
    """Also under an API key."""
    url = served(Catalogue({"tiny": model}, {"docs": index}), api_key="secret")
    page = httpx.get(f"{url}/docs").text
    asked = [each for each in re.findall(r"""(?:src|href)=["\']([^"\']*)""", page) if not each.startswith("data:")]
    assert len(asked) == 2 and all(each.startswith("/") for each in asked), asked
    assert all(len(httpx.get(url + each).raise_for_status().content) > 10_000 for each in asked)
    described = httpx.get(f"{url}/openapi.json").json()
    assert "HTTPBearer" in described["components"]["securitySchemes"]


def test_the_page_needs_nothing_from_elsewhere(searched: str, url: str) -> None:
    page = httpx.get(f"{searched}/")
    assert page.headers["content-type"].startswith("text/html") and "http" not in page.text.replace("http-equiv", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert httpx.get(f"{searched}/searchable").json() == {"indexes": ["docs"]}
    assert httpx.get(f"{url}/searchable").json() == {"indexes": []}
