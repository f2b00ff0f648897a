"""Readers in other processes see a committed state, whatever a writer does, and the newest at the next fetch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.errors import IndexDamaged, InputError
from mixlm_rerank.index import segments
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.index.lock import held_still, writer_lock

DOCUMENTS, READERS = 40, 4


def version(number: int) -> list[Document]:
    """All documents, in a state that tells its number."""
    return [Document(f"d{docid}", f"{number}") for docid in range(DOCUMENTS)]


def read_until(index: TokenIndex, stub: Any, versions: int, begun: Path, done: Path) -> None:
    """Fetch all documents again and again: each time one version, whole, and never an older one."""
    known = {encoded(stub, number): number for number in range(versions)}
    docids = [document.docid for document in version(0)]
    latest = 0
    while not done.exists():
        fetched = index.fetch(docids)
        assert fetched.found.all()
        versions = {known[tokens.tobytes()] for tokens in fetched.tokens}
        assert len(versions) == 1, f"a mixed read of versions {versions}"
        assert versions.pop() >= latest
        latest = known[fetched.tokens[0].tobytes()]
        begun.touch()


def encoded(stub: Any, number: int) -> bytes:
    return stub().encode([f"{number}"]).tobytes()


@pytest.mark.parametrize("versions", [50, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_no_read_is_torn_or_mixed_and_compaction_loses_none(
    tmp_path: Path, stub: Any, forked: Any, monkeypatch: pytest.MonkeyPatch, versions: int
) -> None:
    """Every window is one commit, so a version appears at once; every third is followed by a compaction."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 3 * 96 * 7)
    index = TokenIndex.build(version(0), stub(), tmp_path / "index", precision="float32", progress=False)
    done, begun = tmp_path / "done", [tmp_path / f"begun {number}" for number in range(READERS)]
    readers = [forked(lambda: read_until(TokenIndex(index.path), stub, versions, own, done)) for own in begun]  # noqa: B023
    while not all(path.exists() for path in begun):
        time.sleep(0.001)
    for number in range(1, versions):
        index.replace(version(number), stub(), progress=False)
        if number % 3 == 0:
            index.compact(progress=False)
    done.touch()
    assert [os.waitpid(reader, 0)[1] for reader in readers] == [0] * READERS


def test_a_reader_of_this_process_follows_updates_and_compactions(tmp_path: Path, stub: Any) -> None:
    writer = TokenIndex.build(version(0), stub(), tmp_path / "index", precision="float32", progress=False)
    reader = TokenIndex(writer.path)
    for number in range(1, 4):
        writer.replace(version(number), stub(), progress=False)
        assert reader.fetch(["d7"]).tokens.tobytes() == encoded(stub, number)
        writer.compact(progress=False)
        assert reader.fetch(["d7"]).tokens.tobytes() == encoded(stub, number)
    writer.delete(["d7"])
    assert not reader.fetch(["d7"]).found[0] and "d7" not in reader and len(reader) == DOCUMENTS - 1


def test_a_reader_that_mapped_nothing_survives_a_compaction(
    tmp_path: Path, stub: Any, forked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer adds a segment that the reader has not mapped, then compacts it away."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 30 * 10)
    index = TokenIndex.build(version(0), stub(), tmp_path / "index", progress=False)
    expected = index.fetch([f"d{docid}" for docid in range(DOCUMENTS)]).tokens

    def work() -> None:
        there = TokenIndex(index.path)
        there.add([Document("new", "new")], stub(), progress=False)
        there.compact(progress=False)

    assert os.waitpid(forked(work), 0)[1] == 0
    docids = [f"d{docid}" for docid in range(DOCUMENTS)]
    np.testing.assert_array_equal(index.fetch(docids).tokens, expected)
    assert "new" in index and len(index) == DOCUMENTS + 1


def test_an_index_rebuilt_by_the_same_model_is_followed(tmp_path: Path, stub: Any, forked: Any) -> None:
    index = TokenIndex.build(version(0), stub(), tmp_path / "index", precision="float32", progress=False)

    def work() -> None:
        index.path.rename(tmp_path / "old")
        TokenIndex.build(version(5), stub(), index.path, precision="float32", progress=False)

    assert os.waitpid(forked(work), 0)[1] == 0
    assert index.fetch(["d7"]).tokens.tobytes() == encoded(stub, 5)


@pytest.mark.parametrize("finished", [True, False], ids=["another model", "half built"])
def test_a_reader_is_never_given_documents_of_what_was_built_in_its_place(
    tmp_path: Path, stub: Any, forked: Any, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    """It has mapped fewer rows than it is asked for, and another index lies there now."""
    index = TokenIndex.build(version(0), stub(), tmp_path / "index", precision="float32", progress=False)
    expected = index.fetch(["d7"]).tokens
    reader = TokenIndex(index.path)
    index.add([Document(f"new{number}", "new") for number in range(20)], stub(), progress=False)
    shutil.rmtree(index.path)
    others = [Document(f"other{number}", f"other {number}") for number in range(90)]

    def work() -> None:
        if not finished:
            monkeypatch.setattr(LocalStore, "finish", lambda store: os._exit(0))
        model = stub(fingerprint="another") if finished else stub()
        TokenIndex.build(others, model, index.path, precision="float32", progress=False)

    assert os.waitpid(forked(work), 0)[1] == 0
    with pytest.raises(IndexDamaged, match="was deleted or replaced after it was opened: open it anew"):
        reader.fetch(["d7", "new3"])
    np.testing.assert_array_equal(reader.fetch(["d7"]).tokens, expected)


def test_opened_in_the_very_moment_of_a_compaction(tmp_path: Path, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading of the map and the mapping of its segments."""
    index = TokenIndex.build(version(0), stub(), tmp_path / "index", progress=False)
    index.delete(["d3"])
    open_segments, compacted = segments.Segments.open, []

    def open_late(self: Any, rows: int) -> None:
        if not compacted:
            compacted.append(True)
            index.compact(progress=False)
        open_segments(self, rows)

    monkeypatch.setattr(segments.Segments, "open", open_late)
    assert len(TokenIndex(index.path)) == DOCUMENTS - 1


def test_a_map_of_many_pages_is_compacted(tmp_path: Path, stub: Any) -> None:
    """Its entries are renumbered while a cursor walks over them."""
    documents = [Document(f"d{number * 7919 % 6007}", f"{number}") for number in range(6007)]
    index = TokenIndex.build(documents, stub(tokens=1, dim=2), tmp_path / "index", precision="float32", progress=False)
    index.delete([document.docid for document in documents[::3]])
    docids = [document.docid for document in documents]
    before = index.fetch(docids)
    index.compact(progress=False)
    after = index.fetch(docids)
    np.testing.assert_array_equal(after.tokens, before.tokens)
    np.testing.assert_array_equal(after.found, before.found)
    assert index.info().dead == 0 and not TokenIndex.verify(index.path, progress=False).damaged


def test_whole_reads_exclude_writers_and_not_each_other(tmp_path: Path, stub: Any) -> None:
    index = TokenIndex.build(version(0), stub(), tmp_path / "index", progress=False)
    with held_still(index.path):
        assert not TokenIndex.verify(index.path, progress=False).damaged
        assert index.compare(version(0)).unchanged == DOCUMENTS
        with pytest.raises(InputError, match="is being read whole by another process: wait for it"):
            index.delete(["d1"])
    with writer_lock(index.path), pytest.raises(InputError, match="is being written by another process"):
        index.compare(version(0))


@pytest.mark.processes
def test_a_process_ends_while_a_thread_of_it_reads(stub: Any, tmp_path: Path) -> None:
    """A daemon thread is frozen at the end, perhaps with the lock that closing an index would wait for."""
    for name in ("read", "held"):
        TokenIndex.build(version(0), stub(), tmp_path / name, progress=False)
    (tmp_path / "reading.py").write_text(
        "from mixlm_rerank import TokenIndex\n"
        "def read():\n    index = TokenIndex('read')\n    while True:\n        index.fetch(['d0'])\n"
    )
    code = (
        "import threading, time, reading\nfrom mixlm_rerank import TokenIndex\nheld = TokenIndex('held')\n"
        "threading.Thread(target=reading.read, daemon=True).start()\ntime.sleep(0.5)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
