"""Where the address space is limited, where files belong to another user, and where the working directory changes."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.index import environment

NOBODY = 65534


def limited(more: int) -> None:
    """``ulimit -v``: so many bytes of address space more than there are now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def appears(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_is_built_read_and_changed_in_a_limited_address_space(
    tmp_path: Path, stub: Any, corpus: Any, forked: Any
) -> None:
    def work() -> None:
        limited(1 << 30)
        index = TokenIndex.build(corpus(20), stub(), tmp_path / "index", progress=False)
        index.sync(corpus(30), stub(), progress=False)
        index.delete(["d3"])
        index.compact(progress=False)
        assert index.fetch(["d29", "d3"]).found.tolist() == [True, False]

    assert os.waitpid(forked(work), 0)[1] == 0
    assert len(TokenIndex(tmp_path / "index")) == 29


def test_too_little_address_space_is_named(tmp_path: Path, stub: Any, corpus: Any, forked: Any) -> None:
    """Not: the index is damaged; not: the disk is full."""
    TokenIndex.build(corpus(20), stub(), tmp_path / "index", progress=False)

    def work() -> None:
        limited(1 << 20)
        with pytest.raises(
            InputError, match=r"no address space for the docid map in .*: raise its limit \(ulimit -v\)"
        ):
            TokenIndex(tmp_path / "index")

    assert os.waitpid(forked(work), 0)[1] == 0


def test_a_full_map_is_named_and_the_same_call_goes_on(
    tmp_path: Path, stub: Any, corpus: Any, forked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every start there is room for four times of what is there."""
    monkeypatch.setattr(environment, "LEAST_MAP_SIZE", 1 << 17)
    monkeypatch.setattr("mixlm_rerank.index.builder.WINDOW", 50)
    documents = [Document(f"{number:0500d}", f"text {number}") for number in range(400)]

    def work() -> None:
        limited(1 << 30)
        for starts in range(5):  # noqa: B007
            try:
                TokenIndex.build(documents, stub(), tmp_path / "index", progress=False)
                break
            except InputError as error:
                assert "address space limited (ulimit -v)?" in str(error)
        assert 0 < starts < 4

    assert os.waitpid(forked(work), 0)[1] == 0
    assert len(TokenIndex(tmp_path / "index")) == 400


def test_a_reader_with_a_small_map_follows_a_writer_with_a_large_one(
    tmp_path: Path, stub: Any, forked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "LEAST_MAP_SIZE", 1 << 17)
    grown, opened = tmp_path / "grown", tmp_path / "opened"
    documents = [Document(f"{number:0500d}", f"text {number}") for number in range(1000)]
    TokenIndex.build(documents[:10], stub(), tmp_path / "index", progress=False)

    def read() -> None:
        limited(1 << 30)
        index = TokenIndex(tmp_path / "index")
        opened.touch()
        appears(grown)
        assert index.fetch([document.docid for document in documents]).found.all()

    reader = forked(read)
    appears(opened)
    TokenIndex(tmp_path / "index").add(documents, stub(), progress=False)
    grown.touch()
    assert os.waitpid(reader, 0)[1] == 0


@pytest.fixture
def theirs(stub: Any, corpus: Any) -> Iterator[Path]:
    """An index in a folder that everyone may write to; its files belong to us. What they may not do we may not, too."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    TokenIndex.build(corpus(20), stub(), folder / "index", progress=False)
    (folder / "index").chmod(0o777)
    for path in (folder / "index").iterdir():
        path.chmod(0o444)
    yield folder / "index"
    shutil.rmtree(folder)


def as_another_user(forked: Any, work: Callable[[], object]) -> None:
    def run() -> None:
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        work()

    assert os.waitpid(forked(run), 0)[1] == 0


@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "without"])
def test_an_index_of_another_user_in_a_folder_that_all_may_write_to_is_read(
    theirs: Path, stub: Any, corpus: Any, forked: Any, locks: bool
) -> None:
    """And nothing of ours is left there: a lock file of ours would keep out its owner."""
    if not locks:
        (theirs / "lock.mdb").unlink()
        (theirs / "writer.lock").unlink()
    before = sorted(path.name for path in theirs.iterdir())

    def read() -> None:
        index = TokenIndex(theirs)
        np.testing.assert_allclose(index.fetch(["d7"]).tokens, stub().encode(["text number 7"]), atol=0.02)
        assert index.compare(corpus(20)).unchanged == 20
        assert not TokenIndex.verify(theirs, progress=False).damaged

    as_another_user(forked, read)
    assert sorted(path.name for path in theirs.iterdir()) == before


def test_what_another_user_may_not_do_is_said_before_the_work(
    theirs: Path, stub: Any, corpus: Any, forked: Any
) -> None:
    (theirs / "writer.lock").chmod(0o666)

    class Untouched(stub):
        def encode(self, texts: list[str], *, bar: object = None) -> Any:
            raise AssertionError

    def write() -> None:
        for work in (
            lambda: TokenIndex(theirs).sync(corpus(30), Untouched()),
            lambda: TokenIndex(theirs).delete(["d1"]),
        ):
            with pytest.raises(InputError, match="cannot write to .*: this user may not write to its file data.mdb"):
                work()

    as_another_user(forked, write)


def test_files_that_may_not_be_read_are_named(theirs: Path, forked: Any) -> None:
    (theirs / "tokens-000000.bin").chmod(0o000)

    def read() -> None:
        with pytest.raises(InputError, match=r"cannot read .*tokens-000000.bin \(Permission denied\)"):
            TokenIndex(theirs)

    as_another_user(forked, read)


def test_it_outlives_a_change_of_the_working_directory(
    tmp_path: Path, stub: Any, corpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens segments, and the map after a fork, by their names."""
    monkeypatch.chdir(tmp_path)
    TokenIndex.build(corpus(20), stub(), "index", progress=False)
    index = TokenIndex("index")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    index.sync(corpus(30), stub(), progress=False)
    assert index.fetch([f"d{number}" for number in range(30)]).found.all()
    assert len(pickle.loads(pickle.dumps(index))) == 30
    assert not TokenIndex.verify(index.path, progress=False).damaged
