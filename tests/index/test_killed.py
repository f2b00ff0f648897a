"""Killed at any moment of any change, an index loses nothing, tears nothing, opens, and the same call goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.index import builder, exchange, opened, segments, updates

OLD = [Document(f"d{number}", f"text {number}") for number in range(30)]
NEW = [Document(f"d{number}", f"text {number + number % 2}") for number in range(5, 45)]


def texts(documents: list[Document]) -> dict[str, str]:
    return {document.docid: document.text for document in documents}


WORK: dict[str, tuple[Callable[[Path, Any], object], dict[str, str]]] = {
    "build": (
        lambda folder, model: TokenIndex.build(OLD, model, folder / "built", precision="float32", progress=False),
        texts(OLD),
    ),
    "add": (
        lambda folder, model: TokenIndex(folder / "index").add(NEW[25:], model, progress=False),
        texts(OLD + NEW[25:]),
    ),
    "sync": (lambda folder, model: TokenIndex(folder / "index").sync(NEW, model, progress=False), texts(NEW)),
    "compact": (lambda folder, model: TokenIndex(folder / "dead").compact(progress=False), texts(OLD[:20])),
    "import": (
        lambda folder, model: TokenIndex.import_from(str(folder / "shards"), folder / "built", progress=False),
        texts(OLD),
    ),
}
PLACE = {"build": "built", "add": "index", "sync": "index", "compact": "dead", "import": "built"}


@pytest.fixture
def start(tmp_path: Path, stub: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an index, one with dead records, and exported shards; windows of 4 and segments of 7 documents."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 7 * 96)
    for module in (builder, updates, opened, exchange):
        monkeypatch.setattr(module, "WINDOW", 4)
    folder = tmp_path / "start"
    index = TokenIndex.build(OLD, stub(), folder / "index", precision="float32", progress=False)
    index.export(str(folder / "shards"), progress=False)
    index.copy(folder / "dead", progress=False).delete([document.docid for document in OLD[20:]])
    return folder


@pytest.mark.parametrize("kills", [8, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("name", WORK)
def test_killed_at_random_moments_it_resumes(
    start: Path, tmp_path: Path, stub: Any, forked: Any, name: str, kills: int
) -> None:
    """Each kill is followed by a look at what is there; a run that got through starts over."""
    work, expected = WORK[name]
    before = texts(OLD[:20] if name == "compact" else OLD)
    draw = random.Random(name)

    class Slow(stub):
        def encode(self, batch: list[str], *, bar: object = None) -> Any:
            time.sleep(0.001)
            return super().encode(batch)

    lasting = duration(lambda: work(shutil.copytree(start, tmp_path / "timed"), Slow()))
    folder = shutil.copytree(start, tmp_path / "0")
    for kill in range(kills):
        child = forked(lambda: work(folder, Slow()))  # noqa: B023
        time.sleep(draw.uniform(0, 1.2 * lasting))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        look(folder / PLACE[name], stub, {} if PLACE[name] == "built" else before, expected)
        if not killed:
            folder = shutil.copytree(start, tmp_path / str(kill + 1))
    with suppress(InputError):  # complete already: the kill came too late
        work(folder, stub())
    index = TokenIndex(folder / PLACE[name])
    assert held(index, stub, expected) == expected
    assert len(index) == len(expected)
    index.compact(progress=False)
    assert held(index, stub, expected) == expected


def duration(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def look(folder: Path, stub: Any, before: dict[str, str], after: dict[str, str]) -> None:
    """Every document is in its old state or its new one; nothing is damaged."""
    if not (folder / "data.mdb").exists():
        assert not before
        return
    assert not TokenIndex.verify(folder, progress=False).damaged
    if before:
        index = TokenIndex(folder)
        found = held(index, stub, before | after)
        for docid, text in found.items():
            assert text in (before.get(docid), after.get(docid))
        lost = before.keys() - found.keys()
        assert lost <= before.keys() - after.keys()


def held(index: TokenIndex, stub: Any, of: dict[str, str]) -> dict[str, str]:
    """docid -> the text that its tokens were made of."""
    known = {stub().encode([text]).tobytes(): text for text in {f"text {number}" for number in range(60)}}
    fetched = index.fetch(list(of))
    docids = [docid for docid, found in zip(of, fetched.found, strict=True) if found]
    return {docid: known[tokens.tobytes()] for docid, tokens in zip(docids, fetched.tokens, strict=True)}
