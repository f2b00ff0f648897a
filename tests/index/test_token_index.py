"""A token index gives back what the encoder made: by docid, in any order, from any thread or process."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.errors import IndexDamaged, InputError
from mixlm_rerank.index import segments


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven documents a segment file, where they take 30 bytes each."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 7 * 30 + 11)


@pytest.fixture
def index(tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]]) -> TokenIndex:
    """100 documents, 3 tokens of 8 components each, as float32."""
    return TokenIndex.build(corpus(100), stub(), tmp_path / "index", precision="float32", progress=False)


def test_fetch_takes_docids_in_any_order_unknown_and_repeated_ones_too(index: TokenIndex, stub: Any) -> None:
    fetched = index.fetch(["d7", "unknown", "d99", "d7", "", "d0", "D0"])
    assert fetched.found.tolist() == [True, False, True, True, False, True, False]
    expected = stub().encode([f"text number {number}" for number in (7, 99, 7, 0)])
    np.testing.assert_array_equal(fetched.tokens, expected)
    assert fetched.tokens.dtype == np.float32


@pytest.mark.parametrize("docids", [[], ["unknown"], ["x" * 512, ""]])
def test_fetch_of_nothing_known_gives_no_tokens(index: TokenIndex, docids: list[str]) -> None:
    fetched = index.fetch(docids, tokens=2)
    assert fetched.tokens.shape == (0, 2, 8)
    assert fetched.found.tolist() == [False] * len(docids)


@pytest.mark.parametrize("budget", [1, 2, 3, None])
def test_a_budget_gives_the_last_tokens(index: TokenIndex, budget: int | None) -> None:
    whole = index.fetch(["d5", "d4"]).tokens
    np.testing.assert_array_equal(index.fetch(["d5", "d4"], budget).tokens, whole[:, -(budget or 3) :])


@pytest.mark.parametrize("budget", [-1, 0, 4])
def test_an_impossible_budget_is_refused(index: TokenIndex, budget: int) -> None:
    with pytest.raises(InputError, match=f"a budget of {budget} tokens is not possible: the index holds 3"):
        index.fetch(["d5"], budget)


def test_length_and_membership(index: TokenIndex) -> None:
    assert len(index) == 100
    assert "d0" in index and "d99" in index
    assert "d100" not in index and "" not in index and "d" * 600 not in index


def test_info_counts_documents_and_disk_space(index: TokenIndex) -> None:
    info = index.info()
    assert (info.path, info.documents) == (str(index.path), 100)
    assert info.bytes >= 100 * 3 * 8 * 4
    assert info.bytes == sum(path.stat().st_blocks * 512 for path in index.path.iterdir())
    assert info.bytes_per_document == info.bytes / 100
    manifest = info.manifest
    assert (manifest.tokens, manifest.dim, manifest.precision, manifest.complete) == (3, 8, "float32", True)
    assert (manifest.fingerprint, manifest.model) == ("0123456789abcdef", "stub")


@pytest.mark.parametrize("count", [1, 6, 7, 8, 14, 50])
def test_several_segments_read_like_one(
    small_segments: None, tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], count: int
) -> None:
    index = TokenIndex.build(corpus(count), stub(), tmp_path / "index", progress=False)
    sizes = [path.stat().st_size for path in sorted(index.path.glob("tokens-*.bin"))]
    assert sizes == [7 * 30] * (count // 7) + [count % 7 * 30] * (count % 7 > 0)
    numbers = np.random.default_rng(count).permutation(count)
    expected = stub().encode([f"text number {number}" for number in numbers])
    np.testing.assert_allclose(index.fetch([f"d{number}" for number in numbers]).tokens, expected, atol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=100), min_size=1, max_size=20, unique=True), st.randoms())
def test_any_text_is_a_docid(stub: Any, docids: list[str], random: Any) -> None:
    """Unicode, white space, NUL, digits: docids are compared byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        documents = [Document(docid, f"text of {docid}") for docid in docids]
        index = TokenIndex.build(documents, stub(), Path(folder) / "index", precision="float32", progress=False)
        random.shuffle(documents)
        fetched = index.fetch([document.docid for document in documents])
        assert fetched.found.all()
        np.testing.assert_array_equal(fetched.tokens, stub().encode([document.text for document in documents]))
        del index


@pytest.mark.parametrize("docid", ["a" * 511, "é" * 255 + "a", "\ud800", "0"])
def test_docids_of_up_to_511_bytes(tmp_path: Path, stub: Any, docid: str) -> None:
    index = TokenIndex.build([Document(docid, "text")], stub(), tmp_path / "index", progress=False)
    assert docid in index


@pytest.mark.parametrize(("docid", "size"), [("", 0), ("a" * 512, 512), ("é" * 256, 512)])
def test_other_docids_are_refused(tmp_path: Path, stub: Any, docid: str, size: int) -> None:
    documents = [Document("d1", "text"), Document(docid, "text")]
    with pytest.raises(InputError, match=rf"document 2: docid of {size} bytes \(1 to 511 are possible\)"):
        TokenIndex.build(documents, stub(), tmp_path / "index", progress=False)


@pytest.mark.processes
def test_handed_to_another_process_it_is_opened_there(
    index: TokenIndex, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickled as its path; a new process starts in another working directory."""
    monkeypatch.chdir(index.path.parent)
    numbers = range(99, -1, -1)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        docids = [f"d{number}" for number in numbers]
        fetched = pool.submit(TokenIndex.fetch, TokenIndex(index.path.name), docids).result()
    np.testing.assert_array_equal(fetched.tokens, stub().encode([f"text number {number}" for number in numbers]))


def test_opened_twice_in_a_process_both_read_and_the_second_outlives_the_first(index: TokenIndex) -> None:
    path, expected = index.path, index.fetch(["d3"]).tokens
    first, second = TokenIndex(path), TokenIndex(path / ".." / path.name)
    np.testing.assert_array_equal(first.fetch(["d3"]).tokens, expected)
    del first, index
    np.testing.assert_array_equal(second.fetch(["d3"]).tokens, expected)
    assert len(TokenIndex(path)) == 100


@pytest.mark.timeout(60)
def test_threads_may_open_read_and_drop_it_at_the_same_time(index: TokenIndex) -> None:
    path, expected = index.path, index.fetch(["d3", "d4"]).tokens
    del index  # so that the threads' own are the first and the last
    failures: list[object] = []
    barrier = threading.Barrier(8)

    def read() -> None:
        for _ in range(30):
            barrier.wait()
            try:
                np.testing.assert_array_equal(TokenIndex(path).fetch(["d3", "d4"]).tokens, expected)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.timeout(60)
def test_forked_children_read_while_a_thread_of_the_parent_reads(index: TokenIndex, forked: Any) -> None:
    expected = index.fetch(["d3", "d4"]).tokens
    done = threading.Event()

    def read() -> None:
        np.testing.assert_array_equal(index.fetch(["d3", "d4"]).tokens, expected)
        assert len(index) == len(TokenIndex(index.path)) == 100

    def read_on() -> None:
        while not done.is_set():
            index.fetch(["d3", "d4"])

    reader = threading.Thread(target=read_on, daemon=True)
    reader.start()
    children = [forked(read) for _ in range(12)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    done.set()
    assert statuses == [0] * 12
    reader.join()
    read()


def test_deleted_and_built_anew_at_the_same_place_while_the_old_one_is_open(index: TokenIndex, stub: Any) -> None:
    expected = stub().encode(["text number 1"])
    shutil.rmtree(index.path)
    other = stub(fingerprint="another encoder")
    anew = TokenIndex.build([Document("d1", "another text")], other, index.path, precision="float32", progress=False)
    assert (len(index), len(anew)) == (100, 1)
    assert anew.manifest.fingerprint == "another encoder"
    np.testing.assert_array_equal(anew.fetch(["d1"]).tokens, other.encode(["another text"]))
    np.testing.assert_array_equal(index.fetch(["d1"]).tokens, expected)


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
def test_a_forked_child_does_not_mix_up_an_index_with_one_built_in_its_place(
    index: TokenIndex, stub: Any, forked: Any, replaced: bool
) -> None:
    shutil.rmtree(index.path)
    if replaced:
        TokenIndex.build([Document("d1", "another text")], stub(), index.path, progress=False)

    def read() -> None:
        with pytest.raises(IndexDamaged, match="was deleted or replaced after it was opened: open it anew"):
            index.fetch(["d1"])

    assert os.waitpid(forked(read), 0)[1] == 0
