"""A large request is ranked in pieces, which alternate with batches of smaller ones."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from mixlm_rerank import MixLM, Reranker, TokenIndex
from mixlm_rerank.serving.app import Limits
from mixlm_rerank.serving.catalogue import Catalogue

QUERY = "large" * 12  # estimated as 16 positions
LARGE = [f"x{number}" for number in range(500)]  # of 5 positions each


@pytest.fixture
def batches(held: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, int]]]:
    """Of each batch that has begun: its queries, and how many candidates each has."""
    found: list[list[tuple[str, int]]] = []
    plain = held.rerank_batch

    def rank(self: Any, queries: Any, hits: Any) -> Any:
        found.append(sorted((query, len(hits[qid])) for qid, query in queries.items()))
        return plain(self, queries, hits)

    monkeypatch.setattr(held, "rerank_batch", rank)
    return found


@pytest.fixture
def large_url(
    served: Callable[..., str], batches: Any, model: MixLM, index: TokenIndex, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Its batches hold 1,024 positions, however fast it is."""
    monkeypatch.setattr("mixlm_rerank.serving.batching.LARGEST_ON_CPU", 1024)
    return served(Catalogue({"tiny": model}, {"docs": index}), Limits(seconds=60))


def ask(url: str, query: str, docids: list[str]) -> httpx.Response:
    body = {"query": query, "document_ids": docids, "raw_scores": True}
    return httpx.post(f"{url}/v2/rerank", json=body, timeout=60)


def test_a_small_request_passes_a_large_one(
    large_url: str, held: Any, batches: Any, metrics: Callable[..., str], model: MixLM, index: TokenIndex
) -> None:
    """And the pieces of the large one are one ranking."""
    docids = [*LARGE[:300], "d2", *LARGE[300:], "d1", "d3"]
    with ThreadPoolExecutor(3) as pool:
        large = pool.submit(ask, large_url, QUERY, docids)
        assert held.begun.wait(60)
        small = [pool.submit(ask, large_url, query, ["d1", "d2"]) for query in ("small", "tiny")]
        metrics(large_url, "mixlm_waiting_candidates 507.0")
        held.go.set()
        assert [future.result().status_code for future in small] == [200, 200]
        results = large.result().json()["results"]
    assert batches == [[(QUERY, 201)], [("small", 2), ("tiny", 2)], [(QUERY, 204)], [(QUERY, 98)]]
    expected = Reranker(model, index).rerank(QUERY, docids)
    assert [result["document_id"] for result in results] == [doc.docid for doc in expected]
    scores = [result["relevance_score"] for result in results]
    assert scores == pytest.approx([doc.score for doc in expected], abs=1e-4)


def test_a_request_that_was_given_up_is_not_continued(
    large_url: str, held: Any, batches: Any, metrics: Callable[..., str]
) -> None:
    host, port = large_url.removeprefix("http://").split(":")
    body = json.dumps({"query": QUERY, "document_ids": LARGE}).encode()
    head = f"POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        assert held.begun.wait(60)
    metrics(large_url, 'status="499"} 1.0')
    assert "mixlm_waiting_candidates 0.0" in httpx.get(f"{large_url}/metrics").text
    held.go.set()
    assert ask(large_url, "next", ["d1"]).status_code == 200
    assert batches == [[(QUERY, 201)], [("next", 1)]]
