"""Titles in a token index: token ids behind the vectors, the same wherever the index goes, read by the reranker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import IndexDamaged, IndexMismatch, InputError
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.index.manifest import Manifest
from mixlm_rerank.index.quantiser import PRECISIONS, Quantiser
from mixlm_rerank.scoring import ReferenceScorer

TITLE_TOKENS = 5
MOVED = Document("d2", "A cat never barks.", title="Cats. Cats sleep all day")


@pytest.fixture
def model(tiny: Callable[..., MixLM]) -> MixLM:
    return tiny("bert", tokens=4, title_tokens=TITLE_TOKENS)


@pytest.fixture
def index(model: MixLM, documents: list[Document], tmp_path: Path) -> TokenIndex:
    return TokenIndex.build(documents, model, tmp_path / "index", progress=False)


def stored(index: TokenIndex) -> tuple[object, ...]:
    """All that is stored of the documents: records, hashes, checksums."""
    store = LocalStore(index.path)
    ((keys, entries),) = store.scan(100)
    packed = store.packed(keys, entries)
    return keys, packed.records.tobytes(), packed.entries.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_record_is_that_of_an_index_without_titles_and_then_the_ids(precision: str) -> None:
    tokens = np.random.default_rng(0).normal(size=(2, 3, 70)).astype(np.float32)
    plain, titled = Quantiser(precision, 3, 70), Quantiser(precision, 3, 70, title_tokens=2)
    records = titled.pack(tokens, np.array([[1, -1], [258, 3]], dtype=np.int32))
    assert titled.record_bytes == plain.record_bytes + 8
    np.testing.assert_array_equal(records[:, : plain.record_bytes], plain.pack(tokens))
    assert records[:, plain.record_bytes :].tolist() == [[1, 0, 0, 0, 255, 255, 255, 255], [2, 1, 0, 0, 3, 0, 0, 0]]
    for count in (1, 3):
        np.testing.assert_array_equal(titled.unpack(records, count), plain.unpack(plain.pack(tokens), count))
    assert titled.titles(records).tolist() == [[1, -1], [258, 3]]
    assert titled.titles(titled.pack(tokens)).tolist() == [[-1, -1], [-1, -1]]
    assert titled.titles(records[:0]).shape == (0, 2)
    assert plain.titles(plain.pack(tokens)) is None


@pytest.mark.parametrize("count", [0, 7])
def test_the_manifest_speaks_of_titles_where_there_are_some(tiny: Callable[..., MixLM], count: int) -> None:
    manifest = new_manifest(tiny(title_tokens=count), "int8", "none")
    assert (b"title_tokens" in manifest.dumps()) == (count > 0)
    assert Manifest.loads(manifest.dumps(), "here") == manifest
    with pytest.raises(IndexDamaged, match="impossible numbers"):
        Manifest.loads(replace(manifest, title_tokens=-1).dumps(), "here")


def test_each_document_has_the_ids_of_its_title(model: MixLM, index: TokenIndex, documents: list[Document]) -> None:
    fetched = index.fetch(["d2", "gone", "d3"])
    assert fetched.titles is not None
    (cats,) = model.ranker.tokenizer(["Cats"], add_special_tokens=False)["input_ids"]
    assert fetched.titles.tolist() == [[*cats, *[-1] * (TITLE_TOKENS - len(cats))], [-1] * TITLE_TOKENS]
    assert fetched.titles.dtype == np.int32


def test_it_ranks_by_the_reference_scores(model: MixLM, index: TokenIndex, documents: list[Document]) -> None:
    """Documents of the index with their titles; a text that it lacks has none."""
    new = "A stone on the moon"
    hits = [(document.docid, 1.0) for document in documents]
    reranker = Reranker(model, index, missing="encode", texts={"new": new}, tokens=3)
    ranked = reranker.rerank_batch({"q": "a dog", "p": "the moon"}, {"q": [*hits, ("new", 0.5)], "p": hits[:2]})
    fetched = index.fetch([docid for docid, _ in hits], 3)
    (row,) = Quantiser("int8", 4, 64).unpack(Quantiser("int8", 4, 64).pack(model.encode([new])), 3)
    tokens = torch.from_numpy(np.concatenate([fetched.tokens, row[None]]))
    titles = model.ranker.titles([*(document.title for document in documents), ""])
    expected = ReferenceScorer(model).score("a dog", tokens, titles).tolist()
    found = {doc.docid: doc.score for doc in ranked["q"]}
    assert [found[docid] for docid in [*(docid for docid, _ in hits), "new"]] == pytest.approx(expected, abs=1e-4)
    expected = ReferenceScorer(model).score("the moon", tokens[:2], titles[:2]).tolist()
    assert sorted(doc.score for doc in ranked["p"]) == pytest.approx(sorted(expected), abs=1e-4)


def test_without_an_index_texts_have_no_titles(model: MixLM) -> None:
    texts = ["A dog barks.", "Bread"]
    packed = Quantiser("int8", 4, 64).pack(model.encode(texts))
    expected = ReferenceScorer(model).score("a dog", torch.from_numpy(Quantiser("int8", 4, 64).unpack(packed)))
    found = {doc.text: doc.score for doc in Reranker(model).rank("a dog", texts)}
    assert [found[text] for text in texts] == pytest.approx(expected.tolist(), abs=1e-4)


def test_every_passage_is_read_with_its_documents_title(
    model: MixLM, documents: list[Document], tmp_path: Path
) -> None:
    index = TokenIndex.build(documents, model, tmp_path / "passages", passages=True, progress=False)
    fetched = index.fetch(["d6", "d1"])
    (passages, one) = fetched.counts.tolist()
    assert passages > 1 == one and fetched.titles is not None
    expected = model.ranker.titles(["Mail"] * passages + ["Dogs"])
    np.testing.assert_array_equal(fetched.titles, expected.numpy())
    scores = ReferenceScorer(model).score("the mail man", torch.from_numpy(fetched.tokens), expected)
    (first, _) = Reranker(model, index).rerank("the mail man", ["d6", "d1"])
    assert first.score == pytest.approx(float(scores.max()), abs=1e-4)


def test_an_updated_index_equals_a_new_one(
    model: MixLM, index: TokenIndex, documents: list[Document], tmp_path: Path
) -> None:
    """Also where a title takes over words of the text: what the item encoder reads is then the same."""
    assert MOVED.content == documents[1].content
    with pytest.raises(InputError, match="holds 'd2' already, with another text"):
        index.add([MOVED], model, progress=False)
    changed = [documents[0], MOVED, replace(documents[2], title="Rocks"), *documents[3:]]
    assert (index.sync(changed, model, progress=False).changed, len(index)) == (2, 6)
    assert index.sync(changed, model, progress=False).changed == 0
    new = TokenIndex.build(changed, model, tmp_path / "new", progress=False)
    assert stored(index) == stored(new)
    index.compact(progress=False)
    assert stored(index) == stored(new)
    np.testing.assert_array_equal(index.fetch(["d2"]).titles, model.ranker.titles([MOVED.title]).numpy())


def test_an_interrupted_build_refuses_other_titles(
    model: MixLM, documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixlm_rerank.index.encoding.RECORDS", 2)
    calls: list[int] = []
    encode = MixLM.encode

    def stop(self: MixLM, texts: Any, **options: Any) -> Any:
        calls.append(len(texts))
        if len(calls) > 5:  # four of the plan, and one part
            raise KeyboardInterrupt
        return encode(self, texts, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MixLM, "encode", stop)
        TokenIndex.build(documents, model, tmp_path / "index", progress=False)
    with pytest.raises(InputError, match="the corpus has changed"):
        TokenIndex.build([documents[0], MOVED, *documents[2:]], model, tmp_path / "index", progress=False)
    assert len(TokenIndex.build(documents, model, tmp_path / "index", progress=False)) == 6


def test_exported_and_imported_it_is_the_same(
    index: TokenIndex, documents: list[Document], tmp_path: Path, contents: Any
) -> None:
    index.export(str(tmp_path / "shards"), progress=False)
    there = TokenIndex.import_from(str(tmp_path / "shards"), tmp_path / "imported", progress=False)
    assert there.manifest == index.manifest
    assert contents(there.path, documents) == contents(index.path, documents)
    assert not TokenIndex.verify(there.path, progress=False).damaged
    copied = index.copy(tmp_path / "copy", progress=False)
    assert contents(copied.path, documents) == contents(index.path, documents)


def test_an_index_without_titles_is_refused_and_the_other_way_round(
    model: MixLM, index: TokenIndex, tiny: Callable[..., MixLM], documents: list[Document], tmp_path: Path
) -> None:
    plain = tiny("bert", tokens=4)
    without = TokenIndex.build(documents, plain, tmp_path / "plain", progress=False)
    for reads, held in ((model, without), (plain, index)):
        with pytest.raises(IndexMismatch, match="Rebuild it: mixlm-rerank index build"):
            Reranker(reads, held)
