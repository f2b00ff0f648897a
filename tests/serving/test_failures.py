"""Every error that the documentation lists, and none that it does not."""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from mixlm_rerank import MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import IndexMismatch, StoreUnavailable
from mixlm_rerank.serving.app import Limits
from mixlm_rerank.serving.catalogue import Catalogue, FirstStage

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
        ({"query": "q", "documents": [None]}, 422, 'documents.0: give a text, or an object with "text"'),
        ({"query": "q", "documents": ["a", {"text": 3}]}, 422, 'documents.1: give a text, or an object with "text"'),
        (
            {"query": "q", "documents": [{"body": "a"}]},
            422,
            'documents.0 has no text: give a string, or an object with "t',
        ),
        (
            {"query": "q", "documents": [{"text": "a"}], "rank_fields": ["title", "body"]},
            422,
            "documents.0 has no text: give a string, or an object with one of rank_fields (title, body)",
        ),
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


def half_sent(url: str, body: bytes) -> socket.socket:
    """A request whose body of 1,000 bytes is not all there."""
    client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60)
    client.sendall(b"POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + body)
    return client


def test_a_body_that_does_not_arrive(served: Callable[..., str], model: MixLM) -> None:
    with half_sent(served(Catalogue({"tiny": model}, {}), Limits(seconds=0.5)), b"{") as client:
        answer = b"".join(iter(lambda: client.recv(10_000), b""))  # until the server closes
    assert answer.startswith(b"HTTP/1.1 408 ") and b"the body did not arrive within 0.5 s" in answer


def test_all_bodies_together_have_a_limit(served: Callable[..., str], model: MixLM) -> None:
    url = served(Catalogue({"tiny": model}, {}), Limits(body=1000, seconds=60))
    with ExitStack() as stack:
        clients = [stack.enter_context(half_sent(url, b" " * 900)) for _ in range(5)]
        answered, _, _ = select.select(clients, [], [])
        answer = b""
        while b"}" not in answer:
            answer += answered[0].recv(10_000)
    assert answer.startswith(b"HTTP/1.1 429 ") and b"\r\nretry-after: 1\r\n" in answer.lower()
    assert b"all requests together are over the limit of 4,000 bytes" in answer
    assert httpx.post(f"{url}/v2/rerank", json={"query": "q", "documents": ["a"]}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}]
)
def test_a_content_type_that_was_forgotten(url: str, headers: dict[str, str]) -> None:
    """None is taken for JSON; curl's and others' own are told."""
    body = json.dumps({"query": "a dog", "documents": ["a dog"]}).encode()
    answer = httpx.post(f"{url}/v2/rerank", content=body, headers=headers)
    if headers:
        assert (
            answer.status_code == 400 and "send JSON, with Content-Type: application/json" in answer.json()["message"]
        )
    else:
        assert answer.status_code == 200, answer.text


def test_texts_over_the_limit_of_tokens(served: Callable[..., str], model: MixLM, index: TokenIndex) -> None:
    """Only what must be encoded counts: not what the index has, nor what was encoded of late."""
    url = served(Catalogue({"tiny": model}, {"docs": index}), Limits(tokens=50))

    def ask(**body: Any) -> httpx.Response:
        return httpx.post(f"{url}/v2/rerank", json={"query": "q", **body})

    text = "a dog barks at the moon " * 5
    answer = ask(documents=[text, text + "."])
    assert answer.status_code == 413 and "over the limit of 50 a request" in answer.json()["message"]
    assert ask(documents=[text]).status_code == ask(documents=[text + "."]).status_code == 200
    assert ask(documents=[text, text + "."]).status_code == 200
    assert ask(documents=[f"{text} {number}" for number in (1, 2)], document_ids=["d1", "d2"]).status_code == 200


def test_an_api_key(served: Callable[..., str], model: MixLM) -> None:
    url = served(Catalogue({"tiny": model}, {}), api_key="secret")
    body = {"query": "q", "documents": ["a"]}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"Authorization": "Bearer"}):
        answer = httpx.post(f"{url}/v2/rerank", json=body, headers=headers)
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    for given in ("Bearer secret", "bearer secret", "BEARER  secret"):
        assert httpx.post(f"{url}/v2/rerank", json=body, headers={"Authorization": given}).status_code == 200
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
    """Short for the server's own batches, and long for a busy machine."""
    monkeypatch.setattr("mixlm_rerank.serving.catalogue.Reranker", Slow)
    monkeypatch.setattr("mixlm_rerank.serving.batching.MOST_BATCH_SECONDS", 10)
    url = served(Catalogue({"tiny": model}, {"docs": index}), Limits(seconds=10))
    body = {"query": "q", "document_ids": ["d1", "d2"]}
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda _: httpx.post(f"{url}/v2/rerank", json=body, timeout=60), range(12))
    assert 429 not in {answer.status_code for answer in answers}


def ask(url: str, query: str = "q") -> httpx.Response:
    """Of two documents."""
    return httpx.post(f"{url}/v2/rerank", json={"query": query, "document_ids": ["d1", "d2"]}, timeout=60)


def test_a_full_queue(
    served: Callable[..., str], held: Any, metrics: Callable[..., str], model: MixLM, index: TokenIndex
) -> None:
    """One request is scored, one waits; the third is refused at once."""
    url = served(Catalogue({"tiny": model}, {"docs": index}), Limits(waiting=4, seconds=60))
    with ThreadPoolExecutor(2) as pool:
        taken = [pool.submit(ask, url)]
        assert held.begun.wait(60)
        taken.append(pool.submit(ask, url))
        metrics(url, "mixlm_waiting_candidates 4.0")
        third = ask(url)
        assert third.status_code == 429 and int(third.headers["Retry-After"]) >= 1
        assert "4 documents wait, and at most 4 may" in third.json()["message"]
        held.go.set()
        assert [answer.result().status_code for answer in taken] == [200, 200]
    assert "mixlm_refused_total 1.0" in metrics(url, "mixlm_waiting_candidates 0.0")


def test_a_deadline(served: Callable[..., str], held: Any, model: MixLM, index: TokenIndex) -> None:
    """Those that wait too long are told so in time: the ranker still holds the first one, and nobody waits for it."""
    url = served(Catalogue({"tiny": model}, {"docs": index}), Limits(waiting=4, seconds=3))
    with ThreadPoolExecutor(2) as pool:
        for late in pool.map(ask, [url] * 2):
            assert late.status_code == 504 and "took longer than its deadline of 3 s" in late.json()["message"]
    assert "mixlm_waiting_candidates 0.0" in httpx.get(f"{url}/metrics").text
    assert ask(url).status_code == 504  # and not 429: the first one takes nobody's place
    held.go.set()
    while ask(url).status_code != 200:  # as soon as the ranker has let go
        time.sleep(0.01)


def test_a_ranker_that_does_not_come_back_is_not_ready(
    served: Callable[..., str], held: Any, model: MixLM, index: TokenIndex
) -> None:
    url = served(Catalogue({"tiny": model}, {"docs": index}), Limits(seconds=1))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask, url)
        assert held.begun.wait(60)
        for path in ("ready", "health"):
            while (answer := httpx.get(f"{url}/{path}")).status_code != 503:
                time.sleep(0.01)
            assert "no batch has returned for over 1 s" in answer.json()["message"]
        held.go.set()
        while httpx.get(f"{url}/ready").status_code != 200:
            time.sleep(0.01)
    assert httpx.get(f"{url}/health").status_code == 200


def test_a_first_stage_that_takes_long_is_within_the_deadline(
    served: Callable[..., str],
    model: MixLM,
    index: TokenIndex,
    first_stage: FirstStage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()
    monkeypatch.setattr(first_stage, "_search", lambda query, hits: go.wait() and [])
    url = served(Catalogue({"tiny": model}, {"docs": index}, {"docs": first_stage}), Limits(seconds=0.5))
    try:
        answer = httpx.get(f"{url}/search", params={"q": "dog"}, timeout=60)
        assert answer.status_code == 504 and "deadline of 0.5 s" in answer.json()["message"]
    finally:
        go.set()


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
    from mixlm_rerank.documents import Documents
    from mixlm_rerank.errors import MixLMError
    from mixlm_rerank.serving.batching import _Job, _rerank
    from mixlm_rerank.serving.rerank import Plan

    reranker = Reranker(model, index, missing="error")

    def job(docid: str) -> _Job:
        documents = Documents(reranker, [None], [docid])
        asked = Plan("tiny", "docs", reranker, "q", documents, [None], [5])
        return _Job(asked, answer=None, part=documents.candidates)  # type: ignore[arg-type]

    bad, first, second = _rerank([job("x"), job("d1"), job("d2")])
    assert isinstance(bad, MixLMError)
    assert [doc.docid for answer in (first, second) for doc in answer] == ["d1", "d2"]  # type: ignore[union-attr]


def test_ids_logs_and_metrics(
    served: Callable[..., str], model: MixLM, index: TokenIndex, caplog: pytest.LogCaptureFixture
) -> None:
    url = served(Catalogue({"tiny": model}, {"docs": index}))
    with caplog.at_level(logging.INFO, logger="mixlm_rerank.access"):
        answer = httpx.post(
            f"{url}/v2/rerank", json={"query": "q", "document_ids": ["d1", "x"]}, headers={"X-Request-ID": "my id"}
        )
        other = httpx.get(f"{url}/nowhere", headers={"X-Request-ID": "r-1"})
        while "/nowhere" not in caplog.text:
            time.sleep(0.01)  # an answer is sent before it is logged and counted
    assert answer.headers["X-Request-ID"] != "my id" and other.headers["X-Request-ID"] == "r-1"
    lines = [json.loads(record.message) for record in caplog.records if record.name == "mixlm_rerank.access"]
    assert lines[-1].items() >= {"id": "r-1", "method": "GET", "path": "/nowhere", "status": 404}.items()
    page = httpx.get(f"{url}/metrics").text
    names = 'index="docs",model="tiny"'
    assert f'mixlm_requests_total{{{names},path="/v2/rerank",status="200"}} 1.0' in page
    assert f'mixlm_request_seconds_count{{{names},path="/v2/rerank"}} 1.0' in page
    assert 'mixlm_requests_total{index="",model="",path="other",status="404"} 1.0' in page
    assert f"mixlm_missing_documents_total{{{names}}} 1.0" in page and f"mixlm_documents_total{{{names}}} 2.0" in page


def test_what_nobody_waits_for_is_not_ranked(
    served: Callable[..., str],
    held: Any,
    metrics: Callable[..., str],
    model: MixLM,
    index: TokenIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that leaves takes its request out of the queue; one that leaves within its body is none."""
    url = served(Catalogue({"tiny": model}, {"docs": index}), Limits(seconds=60))
    ranked: list[str] = []
    plain = held.rerank_batch
    monkeypatch.setattr(
        held,
        "rerank_batch",
        lambda self, queries, hits: ranked.extend(queries.values()) or plain(self, queries, hits),
    )
    host, port = url.removeprefix("http://").split(":")

    def leaving(body: bytes, length: int) -> socket.socket:
        client = socket.create_connection((host, int(port)))
        head = f"POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}"
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        return client

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, url, "first")
        assert held.begun.wait(60)
        body = json.dumps({"query": "gone", "document_ids": ["d1"]}).encode()
        with leaving(body, len(body)):
            metrics(url, "mixlm_waiting_candidates 3.0")
        metrics(url, 'model="tiny",path="/v2/rerank",status="499"} 1.0')
        held.go.set()
        assert first.result().status_code == 200
    leaving(b"{", 100).close()
    metrics(url, 'model="",path="/v2/rerank",status="499"} 1.0')
    assert ask(url, "last").status_code == 200
    assert ranked == ["first", "last"]
    metrics(url, "mixlm_waiting_candidates 0.0")


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
