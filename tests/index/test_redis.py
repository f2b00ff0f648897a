"""A real Redis serves what the local index serves; where it fails, the policy holds, and it recovers by itself."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import IndexDamaged, IndexMismatch, InputError, StoreUnavailable
from mixlm_rerank.index import RedisTokenStore, push
from mixlm_rerank.index.updates import Changes

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed (apt)")
redis = pytest.importorskip("redis")

DOCIDS = [f"d{number}" for number in range(30)]


class Server:
    """A Redis server of our own that can be stopped and started."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = ["redis-server", "--port", str(self.port), "--dir", str(folder), "--save", "", *options]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0#corpus"

    @property
    def client(self) -> Any:
        return redis.Redis(port=self.port)

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        while self.process.poll() is None:
            try:
                self.client.ping()
                return
            except redis.exceptions.ConnectionError:
                time.sleep(0.02)
        raise RuntimeError("Redis did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.stop()


@pytest.fixture
def index(tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]]) -> TokenIndex:
    return TokenIndex.build(corpus(30), stub(), tmp_path / "index", progress=False)


@pytest.fixture
def store(server: Server, index: TokenIndex) -> RedisTokenStore:
    assert index.push(server.url, progress=False) == Changes(new=30)
    return RedisTokenStore(server.url)


@pytest.mark.parametrize("precision", ["int8", "float16", "float32"])
def test_it_serves_what_the_local_index_serves(
    server: Server, tmp_path: Path, stub: Any, corpus: Any, precision: str
) -> None:
    documents = [*corpus(600), Document("é ü", "text"), Document("\ud800", "text")]
    index = TokenIndex.build(documents, stub(), tmp_path / "index", precision=precision, progress=False)
    index.push(server.url, progress=False)
    store = RedisTokenStore(server.url)
    docids = ["d599", "x", "d0", "é ü", "\ud800", "d0", "", *(f"d{number}" for number in range(500))]
    for tokens in (None, 2):
        there, here = store.fetch(docids, tokens), index.fetch(docids, tokens)
        np.testing.assert_array_equal(there.tokens, here.tokens)
        assert there.found.tolist() == here.found.tolist()
    assert store.fetch([], 1).tokens.shape == (0, 1, 8)
    assert store.manifest == index.manifest


def test_only_what_differs_is_pushed(server: Server, index: TokenIndex, store: RedisTokenStore, stub: Any) -> None:
    index.sync([Document(f"d{number}", f"text number {max(number, 3)}") for number in range(31)][1:], stub())
    assert index.push(server.url, progress=False) == Changes(new=1, changed=2, unchanged=27, deleted=1)
    assert store.fetch(["d0", "d30"]).found.tolist() == [False, True]
    np.testing.assert_array_equal(store.fetch(DOCIDS).tokens, index.fetch(DOCIDS).tokens)
    assert index.push(server.url, progress=False) == Changes(unchanged=30)
    assert len(server.client.keys("*")) == 31


def test_a_push_that_is_killed_goes_on(
    server: Server, index: TokenIndex, forked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "WINDOW", 10)
    monkeypatch.setattr(push, "LOCK_SECONDS", 600)
    left, whole = 2, push._written

    def write(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments)

    monkeypatch.setattr(push, "_written", write)
    os.waitpid(forked(lambda: index.push(server.url, progress=False)), 0)
    monkeypatch.setattr(push, "_written", whole)
    with pytest.raises(IndexDamaged, match="is half pushed: finish it"):
        RedisTokenStore(server.url)
    with pytest.raises(InputError, match="another push to .* is under way, or was killed: try again in 600 seconds"):
        index.push(server.url, progress=False)
    (lock,) = server.client.keys("*:lock")
    assert 0 < server.client.ttl(lock) <= 600
    server.client.delete(lock)  # as Redis does when the time is over
    assert index.push(server.url, progress=False) == Changes(new=10, unchanged=20)
    assert RedisTokenStore(server.url).fetch(DOCIDS).found.all()


def test_another_encoder_takes_the_place_and_readers_of_the_first_are_told(
    server: Server, store: RedisTokenStore, tmp_path: Path, stub: Any, corpus: Any
) -> None:
    other = TokenIndex.build(corpus(5), stub(fingerprint="fedcba"), tmp_path / "other", progress=False)
    other.push(server.url, progress=False)
    with pytest.raises(IndexMismatch, match=r"holds now an index of item encoder fedcba"):
        store.fetch(DOCIDS)
    assert RedisTokenStore(server.url).fetch(DOCIDS).found.sum() == 5
    assert len(server.client.keys("*")) == 6


def test_while_an_emptied_redis_is_filled_again_the_policy_holds(
    server: Server, store: RedisTokenStore, index: TokenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.client.flushdb()
    whole = push._written
    seen = []

    def write(*arguments: Any) -> Any:
        with pytest.raises(StoreUnavailable, match="is being pushed again"):
            store.fetch(DOCIDS)
        seen.append(True)
        return whole(*arguments)

    monkeypatch.setattr(push, "_written", write)
    index.push(server.url, progress=False)
    assert seen and store.fetch(DOCIDS).found.all()


def test_names_are_kept_apart(server: Server, store: RedisTokenStore, index: TokenIndex, stub: Any) -> None:
    """One name may begin with the other."""
    index.delete(["d0"])
    index.push(f"{server.url}-2", progress=False)
    index.push(f"{server.url}.a", progress=False)
    assert store.fetch(DOCIDS).found.all()
    assert RedisTokenStore(f"{server.url}-2").fetch(DOCIDS).found.sum() == 29


def test_redis_may_forget_it_after_a_while(server: Server, index: TokenIndex) -> None:
    index.push(server.url, ttl=1000, progress=False)
    keys = server.client.keys("*")
    assert len(keys) == 31 and all(900 < server.client.ttl(key) <= 1000 for key in keys)
    index.push(server.url, ttl=5000, progress=False)
    assert all(4900 < server.client.ttl(key) <= 5000 for key in keys)
    index.push(server.url, progress=False)
    assert all(server.client.ttl(key) == -1 for key in keys)
    with pytest.raises(InputError, match="ttl must be at least 1 second"):
        index.push(server.url, ttl=0)


def test_a_stopped_server_is_an_error_and_then_it_recovers(
    server: Server, index: TokenIndex, store: RedisTokenStore
) -> None:
    server.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="does not answer .*: is Redis running there"):
            store.fetch(DOCIDS)
    server.start()
    with pytest.raises(StoreUnavailable, match="has lost its index .*push it again"):
        store.fetch(DOCIDS)
    index.push(server.url, progress=False)
    assert store.fetch(DOCIDS).found.all()


def test_a_server_that_hangs_costs_the_timeout_and_no_more(server: Server, store: RedisTokenStore) -> None:
    hasty = RedisTokenStore(server.url, timeout=0.2)
    server.process.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        hasty.fetch(DOCIDS)
    assert time.monotonic() - start < 20  # 0.2, and slack for a busy machine
    server.process.send_signal(signal.SIGCONT)
    assert hasty.fetch(DOCIDS).found.all()


def test_stopped_in_mid_query_the_first_stage_order_stays(
    server: Server, tmp_path: Path, tiny: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The policy "missing", with the reranker's "last"."""
    model = tiny("bert", tokens=4)
    documents = [Document(f"d{number}", f"text number {number} of a tiny corpus") for number in range(12)]
    index = TokenIndex.build(documents, model, tmp_path / "real", progress=False)
    index.push(server.url, progress=False)
    reranker = Reranker(model, RedisTokenStore(server.url, unavailable="missing", timeout=0.5))
    hits = [(f"d{number}", float(20 - number)) for number in range(12)]
    expected = Reranker(model, index).rerank("a query", hits)
    assert reranker.rerank("a query", hits) == expected
    server.stop()
    down = reranker.rerank("a query", hits)
    assert [doc.docid for doc in down] == [docid for docid, _ in hits] and all(doc.missing for doc in down)
    assert "its 12 candidates count as missing" in caplog.text
    server.start()
    index.push(server.url, progress=False)
    assert reranker.rerank("a query", hits) == expected


def test_a_child_process_opens_its_own_connection(store: RedisTokenStore, index: TokenIndex, forked: Any) -> None:
    expected = index.fetch(DOCIDS).tokens

    def read() -> None:
        for there in (store, pickle.loads(pickle.dumps(store))):
            np.testing.assert_array_equal(there.fetch(DOCIDS).tokens, expected)

    assert os.waitpid(forked(read), 0)[1] == 0
    read()


def test_too_little_memory_is_told_before_or_when_it_is_met(
    tmp_path: Path, index: TokenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path, "--maxmemory", "2mb")
    monkeypatch.setattr(push, "OVERHEAD_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"the index needs about 3\d MB; redis://.* \(maxmemory\)"):
        index.push(server.url, progress=False)
    monkeypatch.setattr(push, "_check_memory", lambda *arguments: None)
    server.client.config_set("maxmemory", 1)
    with pytest.raises(InputError, match=r"is full: raise its maxmemory"):
        index.push(server.url, progress=False)
    server.stop()


def test_a_value_of_another_size_is_damage(server: Server, store: RedisTokenStore, index: TokenIndex) -> None:
    server.client.set("mixlm:corpus:0123456789abcdef-int8-blocks:d3", b"short")
    with pytest.raises(IndexDamaged, match="holds a document of another size than 46 bytes: push the index anew"):
        store.fetch(DOCIDS)
    assert index.push(server.url, progress=False).changed == 1
    assert store.fetch(DOCIDS).found.all()


def test_an_absent_index_and_unusable_urls(server: Server) -> None:
    with pytest.raises(InputError, match="there is no token index 'corpus' in redis://"):
        RedisTokenStore(server.url)
    for url in ("redis://localhost", "redis://localhost#", "redis://localhost#a b", "redis://localhost#a:b"):
        with pytest.raises(InputError, match="does not name an index"):
            RedisTokenStore(url)
    with pytest.raises(InputError, match="is no address of a Redis"):
        RedisTokenStore("http://localhost#name")
    with pytest.raises(InputError, match='unavailable must be "error" or "missing"'):
        RedisTokenStore(server.url, unavailable="ignore")  # type: ignore[arg-type]


def test_without_a_password_the_message_asks_for_it(tmp_path: Path, index: TokenIndex) -> None:
    server = Server(tmp_path)
    server.client.config_set("requirepass", "secret")
    try:
        with pytest.raises(InputError, match="give user and password in the URL"):
            index.push(server.url, progress=False)
        url = server.url.replace("127", ":secret@127")
        assert index.push(url, progress=False) == Changes(new=30)
    finally:
        server.stop()


def test_the_password_stands_in_no_message(
    tmp_path: Path, index: TokenIndex, mixlm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not where Redis refuses, is stopped, lacks the index or forgets it, nor where the URL is no URL."""
    server = Server(tmp_path)
    server.client.config_set("requirepass", "hunter2")
    url, said = server.url.replace("127", ":hunter2@127"), []
    wrong = [url.replace("hunter2", "hunter2?"), url.replace("hunter2", "hun/ter2"), url.replace("#", "#a b#")]
    try:
        for unusable in (url, *wrong, url.replace("hunter2", "hunter2x")):
            with pytest.raises(InputError) as raised:
                RedisTokenStore(unusable)
            said.append(str(raised.value))
        done = mixlm(f"index push {index.path} {url}")
        assert done.code == 0
        store = pickle.loads(pickle.dumps(RedisTokenStore(url, unavailable="missing")))
        server.stop()
        store.fetch(DOCIDS)
        said += [done.err, caplog.text, str(store), mixlm(f"serve --offline --index a={url}").err]
        said += [mixlm(f"serve {options}").err for options in (f"--index {url}", f"--index a={url} --index a={url}")]
        said += [mixlm(f"index info {url}").err]
    finally:
        server.stop()
    assert len(said) == 12 and all(said) and not [text for text in said if "hun" in text], said


def test_passages_are_served_all_of_a_document_together(server: Server, tmp_path: Path, stub: Any) -> None:
    """Beside an index without them, under the same name, and in its place."""
    texts = {docid: "word " * words for docid, words in (("d0", 3), ("d1", 30), ("d2", 12))}
    documents, model = [Document(docid, text) for docid, text in texts.items()], stub(text_tokens=8)
    TokenIndex.build(documents, model, tmp_path / "plain", progress=False).push(server.url, progress=False)
    index = TokenIndex.build(documents, model, tmp_path / "index", passages=True, progress=False)
    assert index.push(server.url, progress=False) == Changes(new=3, deleted=3)
    store = RedisTokenStore(server.url)
    there, here = store.fetch(["d2", "x", "d1", "d0"], 2), index.fetch(["d2", "x", "d1", "d0"], 2)
    np.testing.assert_array_equal(there.tokens, here.tokens)
    assert there.counts.tolist() == here.counts.tolist() == [2, 0, 5, 1]
    index.replace([Document("d1", "word " * 12)], model, progress=False)
    assert index.push(server.url, progress=False) == Changes(changed=1, unchanged=2)
    assert store.fetch(["d1"]).counts.tolist() == [2]
    (key,) = server.client.keys("*:d0")
    server.client.setrange(key, server.client.strlen(key), "x")
    with pytest.raises(IndexDamaged, match="holds a document of another size"):
        store.fetch(["d0"])


def test_titles_travel_with_the_tokens(server: Server, tiny: Any, documents: list[Document], tmp_path: Path) -> None:
    model = tiny("bert", tokens=4, title_tokens=5)
    index = TokenIndex.build(documents, model, tmp_path / "titled", progress=False)
    index.push(server.url, progress=False)
    docids = [document.docid for document in documents]
    assert Reranker(model, server.url).rerank("a dog", docids) == Reranker(model, index).rerank("a dog", docids)
    index.replace([Document("d4", documents[3].text, title="Flour")], model, progress=False)
    assert index.push(server.url, progress=False).changed == 1
    there = RedisTokenStore(server.url).fetch(["d4"])
    np.testing.assert_array_equal(there.titles, model.ranker.titles(["Flour"]).numpy())


def test_it_serves_vectors_of_the_users_own(server: Server, tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    model, vectors = tiny("bert", vectors=3, tokens=2), np.random.default_rng(0).standard_normal((30, 2, 3))
    index = TokenIndex.from_vectors(DOCIDS, vectors, model, tmp_path / "vectors", progress=False)
    index.push(server.url, progress=False)
    store = RedisTokenStore(server.url)
    assert store.manifest == index.manifest
    assert Reranker(model, store).rerank("a dog", DOCIDS) == Reranker(model, index).rerank("a dog", DOCIDS)
