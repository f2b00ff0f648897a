"""An index that was changed holds what a fresh build of the same documents would hold, byte for byte."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.errors import IndexDamaged, IndexMismatch, InputError
from mixlm_rerank.index import segments, updates
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.index.updates import Changes


@pytest.fixture
def index(tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]]) -> TokenIndex:
    """Documents d0 to d19."""
    return TokenIndex.build(corpus(20), stub(), tmp_path / "index", progress=False)


def records(folder: Path, docids: list[str]) -> dict[str, bytes]:
    """The stored bytes of each document that is there."""
    store = LocalStore(folder)
    rows = store.entries(docids)["row"]
    return {
        docid: store.segments.read(rows[[place]]).tobytes() for place, docid in enumerate(docids) if rows[place] >= 0
    }


def test_update_equals_rebuild(stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any series of changes every document's record is that of a fresh build, and none other is there."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 5 * 30)  # five documents a segment
    monkeypatch.setattr(updates, "WINDOW", 3)
    docids = [f"d{number}" for number in range(12)]
    some = st.dictionaries(st.sampled_from(docids), st.integers(0, 3).map("text {}".format), min_size=1)

    class Life(RuleBasedStateMachine):
        indexes = Bundle("indexes")

        def __init__(self) -> None:
            super().__init__()
            self.folder = Path(tempfile.mkdtemp(dir=tmp_path))
            self.held = {"d0": "text 0", "d1": "text 1"}
            self.index = TokenIndex.build(documents(self.held), stub(), self.folder / "index", progress=False)

        @rule(texts=some)
        def add(self, texts: dict[str, str]) -> None:
            clash = any(self.held.get(docid, text) != text for docid, text in texts.items())
            if clash:
                with pytest.raises(InputError, match="already, with another text: use replace"):
                    self.index.add(documents(texts), stub(), progress=False)
            else:
                new = len(texts.keys() - self.held.keys())
                assert self.index.add(documents(texts), stub(), progress=False) == Changes(new, 0, len(texts) - new)
                self.held |= texts

        @rule(texts=some)
        def replace(self, texts: dict[str, str]) -> None:
            self.index.replace(documents(texts), stub(), progress=False)
            self.held |= texts

        @rule(data=st.data())
        @precondition(lambda self: self.held)
        def delete(self, data: st.DataObject) -> None:
            gone = data.draw(st.lists(st.sampled_from(sorted(self.held)), min_size=1, unique=True))
            self.index.delete(gone)
            self.held = {docid: text for docid, text in self.held.items() if docid not in gone}

        @rule(texts=some)
        def sync(self, texts: dict[str, str]) -> None:
            expected = self.index.compare(documents(texts))
            assert self.index.sync(documents(texts), stub(), progress=False) == expected
            assert expected.new + expected.changed + expected.unchanged == len(texts)
            assert expected.deleted == len(self.held.keys() - texts.keys())
            self.held = dict(texts)

        @rule()
        def compact(self) -> None:
            self.index.compact(progress=False)
            assert self.index.info().dead == 0

        @rule()
        def copy(self) -> None:
            target = Path(tempfile.mkdtemp(dir=tmp_path)) / "copy"
            self.index = self.index.copy(target, progress=False)

        @rule()
        def reopen(self) -> None:
            self.index = TokenIndex(self.index.path)

        @invariant()
        def equals_a_rebuild(self) -> None:
            assert len(self.index) == len(self.held)
            if self.held:
                fresh = TokenIndex.build(documents(self.held), stub(), self.folder / "fresh", progress=False)
                assert records(self.index.path, docids) == records(fresh.path, docids)
                np.testing.assert_array_equal(self.index.fetch(docids).tokens, fresh.fetch(docids).tokens)
                del fresh
                shutil.rmtree(self.folder / "fresh")
            assert not TokenIndex.verify(self.index.path, progress=False).damaged

    run_state_machine_as_test(Life, settings=settings(max_examples=10, stateful_step_count=12, deadline=None))


def documents(texts: dict[str, str]) -> list[Document]:
    return [Document(docid, text) for docid, text in texts.items()]


def test_an_index_can_be_emptied_and_filled_again(index: TokenIndex, stub: Any, corpus: Any) -> None:
    index.delete([f"d{number}" for number in range(20)])
    index.compact(progress=False)
    assert (len(index), index.info().dead, list(index.path.glob("tokens-*.bin"))) == (0, 0, [])
    assert not index.fetch(["d1"]).found.any()
    assert index.sync(corpus(3), stub(), progress=False) == Changes(new=3)
    np.testing.assert_allclose(index.fetch(["d1"]).tokens, stub().encode(["text number 1"]), atol=0.02)


def test_only_what_changed_is_encoded(index: TokenIndex, stub: Any, corpus: Any) -> None:
    class Counting(stub):
        encoded: list[str] = []  # noqa: RUF012

        def encode(self, texts: list[str], *, bar: object = None) -> Any:
            self.encoded.extend(texts)
            return super().encode(texts)

    changed = [*corpus(18), Document("d18", "new text"), Document("d20", "more")]
    expected = Changes(new=1, changed=1, unchanged=18, deleted=1)
    assert index.compare(changed) == expected
    assert index.sync(changed, Counting(), progress=False) == expected
    assert Counting.encoded == ["more", "new text"]
    assert (index.compare(changed), index.info().dead) == (Changes(unchanged=20), 2)


@pytest.mark.parametrize("how", ["add", "replace", "sync"])
def test_a_one_way_stream_will_do(index: TokenIndex, stub: Any, corpus: Any, how: str) -> None:
    changes = getattr(index, how)(iter(corpus(25)), stub(), progress=False)
    assert changes == Changes(new=5, unchanged=20)


@pytest.mark.parametrize("how", ["add", "replace", "sync", "compare"])
@pytest.mark.parametrize("docid", ["d3", "d30"], ids=["known", "new"])
def test_a_docid_twice_is_refused_and_nothing_is_written(index: TokenIndex, stub: Any, how: str, docid: str) -> None:
    twice = [Document(docid, "text number 3")] * 2
    arguments = [twice] if how == "compare" else [twice, stub()]
    with pytest.raises(InputError, match=f"duplicate docid '{docid}'"):
        getattr(index, how)(*arguments)
    assert (len(index), index.info().dead) == (20, 0)


def test_deleting_what_is_not_there_deletes_nothing(index: TokenIndex) -> None:
    with pytest.raises(InputError, match=r"does not hold 'x' \(2 of 3\): nothing deleted"):
        index.delete(["d1", "x", "y"])
    assert len(index) == 20


def test_an_empty_corpus_does_not_empty_the_index(index: TokenIndex, stub: Any) -> None:
    with pytest.raises(InputError, match="the corpus holds no documents"):
        index.sync([], stub())
    assert len(index) == 20


def test_a_document_that_lost_its_text_is_told_or_left_out(index: TokenIndex, stub: Any, corpus: Any) -> None:
    emptied = [*corpus(19), Document("d19", " ")]
    with pytest.raises(InputError, match=r"document 20 \('d19'\) has no text"):
        index.sync(emptied, stub(), progress=False)
    assert index.sync(emptied, stub(), skip_empty=True, progress=False) == Changes(unchanged=19, deleted=1)


@pytest.mark.parametrize("how", ["add", "replace", "sync"])
def test_another_model_is_refused(index: TokenIndex, stub: Any, corpus: Any, how: str) -> None:
    with pytest.raises(IndexMismatch, match="was built by item encoder 0123456789abcdef"):
        getattr(index, how)(corpus(21), stub(fingerprint="another encoder"))


def test_without_room_nothing_is_begun(
    index: TokenIndex, stub: Any, corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.delete(["d19"])
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 10}))
    for work in (
        lambda: index.add(corpus(30), stub(), progress=False),
        lambda: index.compact(progress=False),
        lambda: index.copy(tmp_path / "copy", progress=False),
    ):
        with pytest.raises(InputError, match="the index needs about .* MB free"):
            work()
    assert len(index) == 19 and not (tmp_path / "copy").exists()


def test_a_half_built_index_is_not_changed(tmp_path: Path, stub: Any, corpus: Any) -> None:
    index = TokenIndex.build(corpus(20), stub(), tmp_path / "index", progress=False)
    store = LocalStore(index.path)
    store._view[0].rewrite(store.manifest.dumps().replace(b'"complete": true', b'"complete": false'))
    for work in (lambda: index.delete(["d1"]), lambda: index.compact(), lambda: index.export(str(tmp_path / "out"))):
        with pytest.raises(IndexDamaged, match="half built"):
            work()


def test_copies_do_not_overwrite(index: TokenIndex, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        index.copy(tmp_path)


def test_foreign_files_in_the_folder_stay(index: TokenIndex) -> None:
    names = ["tokens-backup.bin", "tokens-old-000000.bin", "tokens-7-000000.bin"]
    for name in names:
        (index.path / name).touch()
    index.delete(["d3"])
    index.compact(progress=False)
    assert [name for name in names if (index.path / name).exists()] == names[:2]
