"""Every error that the documentation lists, and none that it does not."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from mixlm_rerank import MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import IndexMismatch, StoreUnavailable
from mixlm_rerank.serving.app import Limits
from mixlm_rerank.serving.catalogue import Catalogue

Post = Callable[..., httpx.Response]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": " ", "documents": ["a"]}, 400, "query is empty"),
        ({"query": "\u200b\0", "documents": ["a"]}, 400, "query is empty"),
        ({"query": "q"}, 400, "no documents: give documents"),
        ({"query": "q", "documents": []}, 400, "no documents"),
        ({"query": "q", "documents": ["a"], "document_ids": ["d1", "d2"]}, 400, "1 documents and 2 document_ids"),
        ({"documents": ["a"]}, 400, "query: Field required"),
        (
            {"query": "q", "documents": ["a"], "model": "other"},
            404,
            "no model 'other' on this server; there are: 'tiny'",
        ),
        (
            {"query": "q", "document_ids": ["d1"], "index": "other"},
            404,
            "no index 'other' on this server; there are: 'docs'",
        ),
        ({"query": 3, "documents": ["a"]}, 422, "query: Input should be a valid string"),
        ({"query": "q", "documents": "a"}, 422, "documents: Input should be a valid list"),
        ({"query": "q", "documents": [None]}, 422, "documents.0"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, 422, "top_n: Input should be greater than or equal to 1"),
        ({"query": "q", "documents": ["a"], "tokens": 99}, 422, "between 1 and 4"),
        ({"query": "q", "documents": ["a"], "missing": "skip"}, 422, "missing: Input should be"),
        ({"query": "q", "documents": ["a"] * 10_001}, 422, "documents: List should have at most 10000 items"),
    ],
)
def test_what_cannot_be_answered_is_said(post: Post, body: dict[str, Any], status: int, message: str) -> None:
    answer = post(**body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["message"] and message in answer.json()["message"]


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"text"', "\xff", '{"query": "\ud800"}', "[" * 10_000])
def test_bodies_that_are_no_request(url: str, body: str) -> None:
    content = body.encode("utf-8", "surrogatepass")
    answer = httpx.post(f"{url}/v2/rerank", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and list(answer.json()) == ["message"]


def test_paths_and_methods_that_are_none(url: str) -> None:
    assert httpx.get(f"{url}/nowhere").status_code == 404
    answer = httpx.get(f"{url}/v2/rerank")
    assert answer.status_code == 405 and answer.json()["message"] == "GET /v2/rerank: Method Not Allowed"
    assert answer.headers["allow"] == "POST"


def test_a_body_over_the_limit(served: Callable[..., str], model: MixLM) -> None:
    """Told by its length, or, sent in pieces, when the limit is met."""
    url = served(Catalogue({"tiny": model}, {}), Limits(body=1000))
    for content in (b"x" * 1001, (piece for piece in [b"x" * 600] * 2)):
        answer = httpx.post(f"{url}/v2/rerank", content=content)
        assert answer.status_code == 413 and "over the limit of 1,000 bytes" in answer.json()["message"]
    small = httpx.post(f"{url}/v2/rerank", json={"query": "q", "documents": ["a"]})
    assert small.status_code == 200


def test_an_api_key(served: Callable[..., str], model: MixLM) -> None:
    url = served(Catalogue({"tiny": model}, {}), api_key="secret")
    body = {"query": "q", "documents": ["a"]}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"Authorization": "Bearer"}):
        assert httpx.post(f"{url}/v2/rerank", json=body, headers=headers).status_code == 401
    assert httpx.post(f"{url}/v2/rerank", json=body, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert httpx.get(f"{url}/health").status_code == 200


def test_a_model_that_did_not_build_the_index(
    served: Callable[..., str], model: MixLM, index: TokenIndex, tiny: Callable[..., MixLM]
) -> None:
    other = tiny("modernbert", tokens=4)
    url = served(Catalogue({"other": other, "tiny": model}, {"docs": index}))
    body = {"query": "q", "document_ids": ["d1"]}
    assert httpx.post(f"{url}/v2/rerank", json=body).json()["model"] == "tiny"
    answer = httpx.post(f"{url}/v2/rerank", json={**body, "model": "other"})
    assert answer.status_code == 409 and "was built by item encoder" in answer.json()["message"]
    with pytest.raises(IndexMismatch):
        Catalogue({"other": other}, {"docs": index})


class Slow(Reranker):
    """Takes a while."""

    def rerank_batch(self, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.03)
        return super().rerank_batch(*arguments, **options)


def test_a_short_deadline_refuses_nobody_who_can_be_served(
    served: Callable[..., str], model: MixLM, index: TokenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixlm_rerank.serving.catalogue.Reranker", Slow)
    url = served(Catalogue({"tiny": model}, {"docs": index}), Limits(seconds=0.5))
    body = {"query": "q", "document_ids": ["d1", "d2"]}
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda _: httpx.post(f"{url}/v2/rerank", json=body, timeout=30), range(12))
    assert 429 not in {answer.status_code for answer in answers}


class Stalled(Reranker):
    """Waits for ``go`` before it ranks."""

    go = threading.Event()
    begun = threading.Event()

    def rerank_batch(self, *arguments: Any, **options: Any) -> Any:
        Stalled.begun.set()
        Stalled.go.wait(20)
        return super().rerank_batch(*arguments, **options)


@pytest.fixture
def stalled(served: Callable[..., str], model: MixLM, index: TokenIndex, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("mixlm_rerank.serving.catalogue.Reranker", Stalled)
    Stalled.go.clear()
    Stalled.begun.clear()
    return served(Catalogue({"tiny": model}, {"docs": index}), Limits(waiting=4, seconds=1.5))


def test_a_full_queue_and_a_deadline(stalled: str) -> None:
    """One request is scored, one waits; the third is refused at once; those that wait too long are told so in time."""

    def ask(count: int) -> httpx.Response:
        """Of ``count`` documents."""
        docids = [f"d{number}" for number in range(1, count + 1)]
        return httpx.post(f"{stalled}/v2/rerank", json={"query": "q", "document_ids": docids}, timeout=30)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, 2)
        assert Stalled.begun.wait(10)
        second = pool.submit(ask, 2)
        time.sleep(0.3)
        third = ask(2)
        assert third.status_code == 429 and int(third.headers["Retry-After"]) >= 1
        for late in (first.result(), second.result()):  # the ranker still holds the first one, and nobody waits for it
            assert late.status_code == 504 and "took longer than its deadline" in late.json()["message"]
        Stalled.go.set()
    until = time.monotonic() + 10
    while "mixlm_waiting_candidates 0.0" not in (page := httpx.get(f"{stalled}/metrics").text):
        assert time.monotonic() < until, page
    assert ask(2).status_code == 200
    assert "mixlm_refused_total 1.0" in page


def test_a_store_that_does_not_answer(served: Callable[..., str], model: MixLM, index: TokenIndex) -> None:
    class Gone:
        manifest = index.manifest

        def fetch(self, docids: Any, tokens: Any = None) -> Any:
            raise StoreUnavailable("redis://cache#docs does not answer")

    url = served(Catalogue({"tiny": model}, {"docs": Gone()}))
    answer = httpx.post(f"{url}/v2/rerank", json={"query": "q", "document_ids": ["d1"]})
    assert answer.status_code == 503 and "does not answer" in answer.json()["message"]


def test_a_fault_of_ours_is_logged_and_told_without_its_details(
    served: Callable[..., str], model: MixLM, index: TokenIndex, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        manifest = index.manifest

        def fetch(self, docids: Any, tokens: Any = None) -> Any:
            raise ZeroDivisionError("a secret")

    url = served(Catalogue({"tiny": model}, {"docs": Broken()}))
    with caplog.at_level(logging.ERROR):
        answer = httpx.post(
            f"{url}/v2/rerank", json={"query": "q", "document_ids": ["d1"]}, headers={"X-Request-ID": "abc"}
        )
    assert answer.status_code == 500 and "abc" in answer.json()["message"] and "secret" not in answer.text
    assert "a secret" in caplog.text


def test_one_bad_request_does_not_spoil_the_batch_it_is_in(model: MixLM, index: TokenIndex) -> None:
    from mixlm_rerank.errors import MixLMError
    from mixlm_rerank.serving.batching import _Job, _rerank
    from mixlm_rerank.types import Candidate

    reranker = Reranker(model, index, missing="error")

    def job(docid: str) -> _Job:
        return _Job(reranker, "q", [Candidate(docid, 0.0)], answer=None)  # type: ignore[arg-type]

    bad, first, second = _rerank([job("x"), job("d1"), job("d2")])
    assert isinstance(bad, MixLMError)
    assert [doc.docid for answer in (first, second) for doc in answer] == ["d1", "d2"]  # type: ignore[union-attr]


def test_ids_logs_and_metrics(post: Post, url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mixlm_rerank.access"):
        answer = httpx.post(
            f"{url}/v2/rerank", json={"query": "q", "document_ids": ["d1", "x"]}, headers={"X-Request-ID": "my id"}
        )
        other = httpx.get(f"{url}/nowhere", headers={"X-Request-ID": "r-1"})
        deadline = time.monotonic() + 10
        while "/nowhere" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)  # an answer is sent before it is logged and counted
    assert answer.headers["X-Request-ID"] != "my id" and other.headers["X-Request-ID"] == "r-1"
    lines = [json.loads(record.message) for record in caplog.records if record.name == "mixlm_rerank.access"]
    assert lines[-1].items() >= {"id": "r-1", "method": "GET", "path": "/nowhere", "status": 404}.items()
    page = httpx.get(f"{url}/metrics").text
    assert 'mixlm_requests_total{path="/v2/rerank",status="200"} 1.0' in page
    assert 'mixlm_requests_total{path="other",status="404"} 1.0' in page
    assert "mixlm_missing_documents_total 1.0" in page and "mixlm_documents_total 2.0" in page


def test_what_nobody_waits_for_is_not_ranked(stalled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that leaves takes its request out of the queue; one that leaves within its body is none."""
    ranked: list[str] = []
    plain = Stalled.rerank_batch
    monkeypatch.setattr(
        Stalled,
        "rerank_batch",
        lambda self, queries, hits: ranked.extend(queries.values()) or plain(self, queries, hits),
    )

    def ask(query: str, timeout: float) -> httpx.Response:
        return httpx.post(f"{stalled}/v2/rerank", json={"query": query, "document_ids": ["d1"]}, timeout=timeout)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, "first", 30)
        assert Stalled.begun.wait(10)
        with pytest.raises(httpx.ReadTimeout):
            ask("gone", 0.3)
        time.sleep(0.3)
        Stalled.go.set()
        assert first.result().status_code == 200
    host, port = stalled.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.2)
    assert ask("last", 30).status_code == 200
    assert ranked == ["first", "last"]
    time.sleep(0.2)
    page = httpx.get(f"{stalled}/metrics").text
    assert 'status="499"} 2.0' in page and "mixlm_waiting_candidates 0.0" in page


def test_a_ranker_that_panics_ends_one_request_alone(
    served: Callable[..., str], model: MixLM, index: TokenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rust's panics come as BaseException."""

    class Panic(BaseException):
        pass

    def rank(self: Any, queries: dict[str, str], hits: Any) -> Any:
        if "panic" in queries.values():
            raise Panic
        return plain(self, queries, hits)

    plain = Reranker.rerank_batch
    monkeypatch.setattr(Reranker, "rerank_batch", rank)
    url = served(Catalogue({"tiny": model}, {"docs": index}))
    body = {"query": "q", "document_ids": ["d1"]}
    assert httpx.post(f"{url}/v2/rerank", json=body | {"query": "panic"}).status_code == 500
    assert httpx.post(f"{url}/v2/rerank", json=body).status_code == 200
    assert httpx.get(f"{url}/ready").status_code == 200


def test_open_paths_take_no_body(served: Callable[..., str], model: MixLM) -> None:
    url = served(Catalogue({"tiny": model}, {}), api_key="secret")
    assert httpx.request("GET", f"{url}/health", content=b"x" * 1000).status_code == 413


def test_health_notices_weights_that_have_changed(
    served: Callable[..., str], fresh: Callable[..., MixLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr("mixlm_rerank.serving.app.HEALTH_SECONDS", 0.0)
    model = fresh("bert")
    url = served(Catalogue({"tiny": model}, {}))
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "models": ["tiny"], "indexes": []}
    with torch.no_grad():
        model.readout.score.bias.add_(1.0)
    answer = httpx.get(f"{url}/health")
    assert answer.status_code == 503 and "no longer gives its known answer" in answer.json()["message"]
