"""An interrupted build goes on where it stopped and ends with the same bytes; a changed corpus or model is noticed."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.errors import IndexDamaged, IndexMismatch, InputError
from mixlm_rerank.index import builder, segments
from mixlm_rerank.index.local import LocalStore

WINDOW = 8
RECORD_BYTES = 30


class Interrupted(Exception):
    pass


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "WINDOW", WINDOW)


@pytest.fixture(params=[1 << 30, 13 * RECORD_BYTES], ids=["one segment", "segments"])
def whole(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    stub: Any,
    corpus: Any,
    contents: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, object]:
    """What an uninterrupted build of 50 documents stores, in one segment or in several."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", request.param)
    TokenIndex.build(corpus(50), stub(), tmp_path / "whole", progress=False)
    return contents(tmp_path / "whole", corpus(50))


@pytest.fixture
def half_built(tmp_path: Path, stub: Any, corpus: Any) -> Path:
    """An index whose build stopped after 2 windows of 8 documents out of 20."""
    return interrupt(tmp_path / "index", corpus(20), stub(), 2)


def interrupt(folder: Path, documents: list[Document], model: Any, windows: int, stream: bool = False) -> Path:
    """Begin or go on with a build that fails after so many windows."""

    def encode(texts: list[str], *, bar: object = None) -> Any:
        encode.left -= bar is not None  # without a bar: the sample of the estimate
        if encode.left < 0:
            raise Interrupted
        return type(model).encode(model, texts)

    encode.left, model.encode = windows, encode
    with pytest.raises(Interrupted):
        TokenIndex.build(iter(documents) if stream else documents, model, folder, progress=False)
    del model.encode
    return folder


def committed(folder: Path) -> int:
    return LocalStore(folder).rows if (folder / "data.mdb").exists() else 0


@pytest.mark.parametrize("stops", [[0], [1], [3], [6], [2, 1], [0, 1, 1, 1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("stream", [False, True], ids=["list", "generator"])
def test_resumed_after_an_error_it_ends_with_the_same_bytes(
    tmp_path: Path, stub: Any, corpus: Any, contents: Any, whole: dict[str, object], stops: list[int], stream: bool
) -> None:
    folder, documents = tmp_path / "index", corpus(50)
    for done, windows in enumerate(stops, 1):
        interrupt(folder, documents, stub(), windows, stream)
        assert committed(folder) == sum(stops[:done]) * WINDOW
    TokenIndex.build(iter(documents) if stream else documents, stub(), folder, progress=False)
    assert contents(folder, documents) == whole


@pytest.mark.parametrize("records", [1, 7.5, 40])
def test_what_a_crash_left_after_the_committed_rows_is_overwritten(
    tmp_path: Path, stub: Any, corpus: Any, contents: Any, whole: dict[str, object], records: float
) -> None:
    folder = interrupt(tmp_path / "index", corpus(50), stub(), 3)
    with max(folder.glob("tokens-*.bin")).open("ab") as file:
        file.write(b"\xff" * int(records * RECORD_BYTES))
    TokenIndex.build(corpus(50), stub(), folder, progress=False)
    assert contents(folder, corpus(50)) == whole


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(
    tmp_path: Path, stub: Any, corpus: Any, contents: Any, whole: dict[str, object], forked: Any
) -> None:
    """SIGKILL from the very start of the build on; then whenever a few more records lie on the disk."""
    folder, documents, draw = tmp_path / "index", corpus(50), random.Random(0)

    def written() -> int:
        with suppress(FileNotFoundError):
            return sum(path.stat().st_size for path in folder.glob("tokens-*.bin"))
        return 0

    class Waiting(stub):
        """Goes no further than to the next window once the moment has come, however late the kill is."""

        def encode(self, texts: list[str], *, bar: object = None) -> Any:
            if written() >= target:
                signal.pause()
            return super().encode(texts)

    rows = [0]
    for target in [0] * 10 + [1, 200, 400, 600, 800, 1000, 1200, 1400]:
        child = forked(lambda: TokenIndex.build(documents, Waiting(), folder, progress=False))
        while written() < target:
            time.sleep(0.0002)
        time.sleep(draw.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        rows.append(committed(folder))
    assert rows == sorted(rows) and 0 < rows[-1] < 50
    TokenIndex.build(documents, stub(), folder, progress=False)
    assert contents(folder, documents) == whole


@pytest.mark.processes
@pytest.mark.parametrize("whole", [13 * RECORD_BYTES], indirect=True, ids=["segments"])
def test_killed_at_any_line_of_finishing_it_opens_or_resumes(
    tmp_path: Path, stub: Any, corpus: Any, contents: Any, whole: dict[str, object], forked: Any
) -> None:
    """SIGKILL before the first line of this package that finishes the index, then before the second, and so on."""
    documents = corpus(50)
    begun = interrupt(tmp_path / "begun", documents, stub(), 6)
    states = []
    for line in itertools.count(1):
        folder = shutil.copytree(begun, tmp_path / f"killed at {line}")
        child = forked(lambda: finish_and_die(folder, documents, stub(), line))  # noqa: B023
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        states.append(LocalStore(folder).manifest.complete)
        if not states[-1]:
            TokenIndex.build(documents, stub(), folder, progress=False)
        assert contents(folder, documents) == whole
        if not killed:
            break
    assert len(states) > 10
    assert states == sorted(states)


def finish_and_die(folder: Path, documents: list[Document], model: Any, line: int) -> None:
    """Go on with a build up to so many lines of this package within LocalStore.finish."""
    package, left = str(Path(builder.__file__).parent), line

    def on_call(frame: FrameType, event: str, argument: object) -> Any:
        return on_line if frame.f_code.co_filename.startswith(package) and within(frame) else on_call

    def on_line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        left -= event == "line"
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def within(frame: FrameType | None) -> bool:
        return frame is not None and (frame.f_code is LocalStore.finish.__code__ or within(frame.f_back))

    sys.settrace(on_call)
    TokenIndex.build(documents, model, folder, progress=False)


def test_the_docid_map_does_not_tell_where_a_build_was_interrupted(
    tmp_path: Path, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In random order docids split LMDB's pages, and the gaps in those, even in compact copies, hold remains."""
    monkeypatch.setattr(builder, "WINDOW", 50)
    documents = [Document(f"d{number}", f"text number {number}") for number in range(500)]
    random.Random(0).shuffle(documents)
    maps = set()
    for stops in ([], [1], [3, 1, 2]):
        folder = tmp_path / str(stops)
        for windows in stops:
            interrupt(folder, documents, stub(), windows)
        TokenIndex.build(documents, stub(), folder, progress=False)
        maps.add((folder / "data.mdb").read_bytes())
    assert len(maps) == 1


@pytest.mark.parametrize("windows", [1, 2])
def test_who_has_it_open_when_it_is_finished_is_not_in_the_way(
    tmp_path: Path, stub: Any, corpus: Any, forked: Any, windows: int
) -> None:
    """In this process and in another, whatever the number of its last transaction."""
    folder, ready = interrupt(tmp_path / "index", corpus(20), stub(), windows), tmp_path / "ready"
    here = LocalStore(folder)

    def hold() -> None:
        there = LocalStore(folder)
        ready.touch()
        signal.pause()
        del there

    holder = forked(hold)
    while not ready.exists():
        time.sleep(0.001)
    index = TokenIndex.build(corpus(20), stub(), folder, progress=False)
    assert len(here) == len(index) == len(TokenIndex(folder)) == 20
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert "d19" in TokenIndex(folder)


def test_a_build_that_has_committed_nothing_starts_anew_with_any_settings(
    tmp_path: Path, stub: Any, corpus: Any, forked: Any
) -> None:
    """Stopped in its first window, or killed between the map and the first documents."""
    folder = interrupt(tmp_path / "index", corpus(20), stub(), 0)
    assert not (folder / "data.mdb").exists()

    def build() -> None:
        LocalStore.append = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        TokenIndex.build(corpus(20), stub(), folder, progress=False)

    os.waitpid(forked(build), 0)
    assert LocalStore(folder).rows == 0
    other = stub(fingerprint="fedcba9876543210")
    index = TokenIndex.build(corpus(30), other, folder, precision="float16", progress=False)
    assert (len(index), index.manifest.precision) == (30, "float16")
    assert index.manifest.fingerprint == other.fingerprint


def test_a_half_built_index_is_not_opened_and_the_error_says_how_to_finish_it(tmp_path: Path, half_built: Path) -> None:
    expected = rf"half built \(16 documents\).*index build CORPUS {half_built} --model stub --precision int8"
    with pytest.raises(IndexDamaged, match=expected):
        TokenIndex(half_built)


def changed(documents: list[Document], how: str) -> list[Document]:
    if how == "text":
        documents[3] = Document("d3", "another text")
    elif how == "title":
        documents[3] = Document("d3", documents[3].text, title="title")
    elif how == "docid":
        documents[3] = Document("new", documents[3].text)
    elif how == "removed":
        del documents[3]
    elif how == "added":
        documents.insert(3, Document("new", "new text"))
    elif how == "order":
        documents[3:5] = documents[4:2:-1]
    return documents


@pytest.mark.parametrize("stream", [False, True], ids=["list", "generator"])
@pytest.mark.parametrize("how", ["text", "title", "docid", "removed", "added", "order"])
def test_a_corpus_that_has_changed_is_refused(half_built: Path, stub: Any, corpus: Any, how: str, stream: bool) -> None:
    documents = changed(corpus(20), how)
    with pytest.raises(InputError, match=r"the corpus has changed since .* was interrupted: document 4 \('.*'\)"):
        TokenIndex.build(iter(documents) if stream else documents, stub(), half_built, progress=False)
    assert LocalStore(half_built).rows == 16


def test_a_corpus_shorter_than_what_is_committed_is_refused(half_built: Path, stub: Any, corpus: Any) -> None:
    with pytest.raises(InputError, match="the corpus has changed since .* document 13 is gone"):
        TokenIndex.build(corpus(12), stub(), half_built, progress=False)


def test_a_corpus_that_changes_during_the_build_is_refused(tmp_path: Path, stub: Any, corpus: Any) -> None:
    class Growing(list):
        def __iter__(self) -> Any:
            self.append(Document(f"new{len(self)}", "new text"))
            return super().__iter__()

    with pytest.raises(InputError, match="the corpus had .* documents at first and .* now: it changed under the build"):
        TokenIndex.build(Growing(corpus(20)), stub(), tmp_path / "index", progress=False)


def test_another_model_is_refused_by_both_fingerprints(half_built: Path, stub: Any, corpus: Any) -> None:
    other = stub(fingerprint="fedcba9876543210", name="other")
    with pytest.raises(IndexMismatch, match=r"0123456789abcdef \(stub\).* fedcba9876543210 \(other\)"):
        TokenIndex.build(corpus(20), other, half_built, progress=False)


def test_another_precision_is_refused(half_built: Path, stub: Any, corpus: Any) -> None:
    with pytest.raises(InputError, match="was begun with --precision int8, not --precision float16"):
        TokenIndex.build(corpus(20), stub(), half_built, precision="float16", progress=False)


def test_resuming_needs_room_only_for_what_is_left(
    half_built: Path, stub: Any, corpus: Callable[[int], list[Document]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there already counts as part of the estimate."""
    held = sum(path.stat().st_blocks * 512 for path in half_built.iterdir())
    monkeypatch.setattr("mixlm_rerank.index.plan.DOCID_MAP_BYTES", held)  # 20 times what is there
    usage = type("usage", (), {"free": 19.5 * held})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert len(TokenIndex.build(corpus(20), stub(), half_built, progress=False)) == 20
