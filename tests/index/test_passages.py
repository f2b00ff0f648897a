"""In an index of passages a long document is read to its end, through its whole life: one docid, several records."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mixlm_rerank import Document, MixLM, TokenIndex
from mixlm_rerank.errors import IndexDamaged, InputError
from mixlm_rerank.index import builder, encoding, exchange, segments, updates
from mixlm_rerank.index.encoding import Reader, cut

WORDS = ["dog", "moon", "mail.", "bread", "salt!", "cats", "sleep?\n", "earth"]


def text(words: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def passages(model: Any, document: Document) -> list[str]:
    (reading,) = Reader(model, passages=True).readings([document])
    return reading.texts


@given(st.text(alphabet="ab. \n。", max_size=200), st.integers(1, 12))
@settings(deadline=None)
def test_pieces_are_the_whole_text_and_none_is_too_long(text: str, size: int) -> None:
    words = [word for word in text.split() if word]
    spans, end = [], 0
    for word in words:
        start = text.index(word, end)
        end = start + len(word)
        spans.append((start, end))
    pieces = cut(text, spans, size)
    assert "".join("".join(pieces).split()) == "".join(words)
    assert all(bool(words) <= len(piece.split()) <= size for piece in pieces)
    assert len(pieces) <= max(1, 2 * -(-len(words) // size))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (3, ["a b.", "c d e", "f. g"]),
        (4, ["a b. c d", "e f. g"]),  # not after "b.": pieces are about equally long
        (7, ["a b. c d e f. g"]),
    ],
)
def test_pieces_end_with_a_sentence_where_they_can(size: int, expected: list[str]) -> None:
    text = "a b. c d e f. g"
    spans = [(start, start + len(word)) for word, start in ((w, text.index(w)) for w in text.split())]
    assert cut(text, spans, size) == expected


def test_without_blanks_it_is_cut_after_a_sentence_or_anywhere() -> None:
    text = "狗在叫。月亮圆。猫睡"
    assert cut(text, [(n, n + 1) for n in range(len(text))], 5) == ["狗在叫。", "月亮圆。", "猫睡"]
    assert cut("x" * 10, [(n, n + 1) for n in range(10)], 4) == ["xxxx", "xxx", "xxx"]


@pytest.mark.parametrize("architecture", ["bert", "qwen3", "xlm-roberta"])
def test_the_item_encoder_reads_every_passage_to_its_end(tiny: Callable[..., MixLM], architecture: str) -> None:
    model = tiny(architecture, document_prompt="text: ")
    for seed, words in enumerate((5, 30, 200, 1000)):
        whole = text(words, seed) + " 狗在叫\ud83d🐕 [CLS] <eos>" * 5
        parts = passages(model, Document("d", whole))
        (reading,) = Reader(model, passages=False).readings([Document("d", whole)])
        assert (len(parts) > 1) == (reading.unread > 0)
        for part in parts:
            (reading,) = Reader(model, passages=False).readings([Document("d", part)])
            assert reading.unread == 0, part
        assert "".join("".join(parts).split()) == "".join(whole.split())


@pytest.fixture
def model(stub: Any) -> Any:
    """Five words a passage, less the slack of two."""
    return stub(text_tokens=5)


@pytest.fixture
def documents() -> list[Document]:
    """Of 1 to 12 words, with one to four passages each."""
    return [Document(f"d{number}", text(1 + number, number)) for number in range(12)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of 4 records, parts of 6, windows of 5 documents."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 4 * 96)
    monkeypatch.setattr(encoding, "RECORDS", 6)
    for module in (builder, updates, exchange):
        monkeypatch.setattr(module, "WINDOW", 5)


@pytest.fixture
def index(model: Any, documents: list[Document], tmp_path: Path) -> TokenIndex:
    return build(model, documents, tmp_path / "index")


def build(model: Any, documents: list[Document], folder: Path, **options: Any) -> TokenIndex:
    options = {"precision": "float32", "passages": True, "progress": False} | options
    return TokenIndex.build(documents, model, folder, **options)


def check(index: TokenIndex, model: Any, documents: list[Document]) -> None:
    """It holds the passages of exactly these documents."""
    docids = [document.docid for document in documents]
    fetched = index.fetch([*docids[::-1], "unknown"])
    expected = [passages(model, document) for document in documents[::-1]]
    assert fetched.counts.tolist() == [*map(len, expected), 0]
    assert fetched.found.tolist() == [True] * len(docids) + [False]
    np.testing.assert_array_equal(fetched.tokens, model.encode([part for parts in expected for part in parts]))
    info = index.info()
    assert (len(index), info.documents, info.records) == (len(docids), len(docids), sum(map(len, expected)))
    found = TokenIndex.verify(index.path, progress=False)
    assert (found.documents, found.damaged) == (len(docids), {})


def test_every_document_is_there_with_all_its_passages(index: TokenIndex, model: Any, documents: Any) -> None:
    check(index, model, documents)
    assert index.info().records > 20
    assert index.manifest.passages and index.info().cut == 0


def test_copied_exported_and_imported_it_is_the_same(
    index: TokenIndex, model: Any, documents: list[Document], tmp_path: Path, contents: Any
) -> None:
    check(index.copy(tmp_path / "copy", progress=False), model, documents)
    index.export(str(tmp_path / "shards"), progress=False)
    there = TokenIndex.import_from(str(tmp_path / "shards"), tmp_path / "there", progress=False)
    check(there, model, documents)
    assert there.manifest == index.manifest


def test_an_interrupted_import_goes_on(
    index: TokenIndex, model: Any, documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.export(str(tmp_path / "shards"), progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(exchange, "WINDOW", 16 * 3)
        patch.setattr(exchange, "_refuse_known", interrupted_after(2))
        with pytest.raises(KeyboardInterrupt):
            TokenIndex.import_from(str(tmp_path / "shards"), tmp_path / "there", progress=False)
    with pytest.raises(IndexDamaged, match=r"half built \(6 documents\)"):
        TokenIndex(tmp_path / "there")
    monkeypatch.setattr(exchange, "WINDOW", 16 * 4)
    check(TokenIndex.import_from(str(tmp_path / "shards"), tmp_path / "there", progress=False), model, documents)


def interrupted_after(calls: int) -> Callable[..., None]:
    left = calls

    def call(*arguments: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    return call


def test_an_interrupted_build_goes_on_to_the_same_bytes(
    index: TokenIndex, model: Any, documents: list[Document], tmp_path: Path, contents: Any
) -> None:
    whole, folder, encode = contents(index.path, documents), tmp_path / "again", type(model).encode

    def failing(texts: list[str], *, bar: object = None) -> Any:
        if documents[9].text.startswith(texts[0]):
            raise KeyboardInterrupt
        return encode(model, texts)

    model.encode = failing
    with pytest.raises(KeyboardInterrupt):
        build(model, iter(documents), folder)  # type: ignore[arg-type]
    del model.encode
    with pytest.raises(IndexDamaged, match="half built .* --precision float32 --passages"):
        TokenIndex(folder)
    with pytest.raises(InputError, match="begun with --precision float32 --passages, not --precision float32$"):
        build(model, documents, folder, passages=False)
    build(model, documents, folder)
    assert contents(folder, documents) == whole


def test_damage_to_any_passage_is_damage_to_the_document(
    index: TokenIndex, model: Any, documents: list[Document]
) -> None:
    rows = np.concatenate([[document.docid] * len(passages(model, document)) for document in documents])
    path = index.path / "tokens-000003.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1  # the second record
    path.write_bytes(content)
    (index.path / "tokens-000005.bin").unlink()
    damaged = TokenIndex.verify(index.path, drop=True, progress=False).damaged
    gone = dict.fromkeys(rows[20:24], "its record is gone")
    assert damaged == {rows[13]: "its checksum is another"} | gone
    TokenIndex(index.path).sync(documents, model, progress=False)
    check(TokenIndex(index.path), model, documents)


def test_update_equals_rebuild(model: Any, tmp_path: Path) -> None:
    """After any series of changes, in any order, the passages are those of the texts as they are now."""
    texts = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 20), min_size=1)

    class Life(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.folder = Path(tempfile.mkdtemp(dir=tmp_path))
            self.held = {"a": 3, "b": 12}
            self.index = build(model, self.documents(), self.folder / "index")

        def documents(self) -> list[Document]:
            return [Document(docid, text(words, words)) for docid, words in self.held.items()]

        @rule(changes=texts)
        def replace(self, changes: dict[str, int]) -> None:
            self.held |= changes
            self.index.replace(self.documents(), model, progress=False)

        @rule(now=texts)
        def sync(self, now: dict[str, int]) -> None:
            expected = len(self.held.keys() - now.keys())
            self.held = now
            assert self.index.sync(self.documents(), model, progress=False).deleted == expected

        @rule(data=st.data())
        def delete(self, data: st.DataObject) -> None:
            if len(self.held) > 1:
                gone = data.draw(st.sampled_from(sorted(self.held)))
                self.index.delete([gone])
                del self.held[gone]

        @rule()
        def compact(self) -> None:
            self.index.compact(progress=False)
            assert self.index.info().dead == 0

        @invariant()
        def holds_what_it_should(self) -> None:
            check(self.index, model, self.documents())
            assert self.index.compare(self.documents()).unchanged == len(self.held)

        def teardown(self) -> None:
            shutil.rmtree(self.folder)

    run_state_machine_as_test(Life, settings=settings(max_examples=8, stateful_step_count=10, deadline=None))


def test_an_index_of_passages_is_not_taken_for_one_without(
    index: TokenIndex, model: Any, documents: list[Document], tmp_path: Path
) -> None:
    plain = build(model, documents, tmp_path / "plain", passages=False)
    assert not plain.manifest.same_tokens(index.manifest)
    assert plain.fetch(["d11"]).counts.tolist() == [1] and index.fetch(["d11"]).counts.tolist() != [1]
