"""Vectors of the user's own, from arrays and Parquet: what is stored is what was given, and what is wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import IndexMismatch, InputError
from mixlm_rerank.index import exchange as module
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.scoring import ReferenceScorer

DOCIDS = [f"image-{number}" for number in range(7)]
VECTORS = np.random.default_rng(0).standard_normal((7, 2, 3)).astype(np.float32)
LISTS = VECTORS.tolist()


@pytest.fixture(scope="module")
def model(tiny: Callable[..., MixLM], tmp_path_factory: pytest.TempPathFactory) -> MixLM:
    folder = tmp_path_factory.mktemp("vectors") / "model"
    tiny("bert", vectors=3, tokens=2).save_pretrained(folder)
    return MixLM.from_pretrained(str(folder), device="cpu")


@pytest.fixture
def index(model: MixLM, tmp_path: Path) -> TokenIndex:
    return TokenIndex.from_vectors(DOCIDS, VECTORS, model, tmp_path / "index", progress=False)


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., str]:
    """``parquet(vectors, docids)``: a file of these columns."""

    def write(vectors: Any = LISTS, docids: Any = DOCIDS, name: str = "vectors.parquet") -> str:
        pq.write_table(pa.table({"name": docids, "docid": docids, "vectors": vectors}), tmp_path / name)
        return str(tmp_path / name)

    return write


def changed(place: tuple[int, ...], value: Any) -> Any:
    """The lists of all documents with one number or list replaced."""
    *path, last = place
    rows = [[list(vector) for vector in row] for row in LISTS]
    part: Any = rows
    for step in path:
        part = part[step]
    part[last] = value
    return rows


def test_int8_by_hand(model: MixLM, tmp_path: Path) -> None:
    """One scale a vector, a 127th of its largest number; each number is off by half a step at most."""
    given = [[[127.0, -1.0, 0.4], [0.0, 0.0, 0.0]]]
    index = TokenIndex.from_vectors(["a"], given, model, tmp_path / "index", progress=False)
    assert index.fetch(["a"]).tokens.tolist() == [[[127.0, -1.0, 0.0], [0.0, 0.0, 0.0]]]
    assert index.manifest.precision == "int8" and not TokenIndex.verify(index.path, progress=False).damaged


@pytest.mark.parametrize(
    "column",
    [
        LISTS,
        VECTORS.reshape(7, 6).tolist(),
        pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 6),
        pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 3), 2),
        pa.array(LISTS, pa.large_list(pa.list_(pa.float64()))),
    ],
    ids=["lists of lists", "flat lists", "fixed size", "fixed sizes", "large"],
)
def test_any_list_of_parquet_will_do(
    model: MixLM, parquet: Callable[..., str], tmp_path: Path, column: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BYTES", 3 * 4 * 6)  # three documents at once: slices of the columns are read right
    there = TokenIndex.import_from(
        parquet(column), tmp_path / "index", model=model, precision="float32", progress=False
    )
    np.testing.assert_array_equal(there.fetch(DOCIDS).tokens, VECTORS)


def test_arrays_files_and_folders_make_the_same_index(
    model: MixLM, parquet: Callable[..., str], tmp_path: Path, index: TokenIndex
) -> None:
    flat = TokenIndex.from_vectors(DOCIDS, VECTORS.reshape(7, 6), model, tmp_path / "flat", progress=False)
    np.save(tmp_path / "vectors.npy", VECTORS)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    from_disk = TokenIndex.from_vectors(DOCIDS, mapped, model, tmp_path / "mapped", progress=False)
    one_file = TokenIndex.import_from(parquet(), tmp_path / "file", model=model, progress=False)
    (tmp_path / "folder").mkdir()
    parquet(LISTS[4:], DOCIDS[4:], "folder/2.parquet")
    parquet(LISTS[:4], DOCIDS[:4], "folder/1.parquet")
    files = TokenIndex.import_from(str(tmp_path / "folder"), tmp_path / "files", model=model, progress=False)
    digests = {one.digest() for one in (index, flat, from_disk, one_file, files)}
    assert len(digests) == 1
    other = TokenIndex.from_vectors(DOCIDS, VECTORS + 1, model, tmp_path / "other", progress=False)
    assert other.digest() not in digests


def test_a_reranker_scores_what_was_given(model: MixLM, index: TokenIndex) -> None:
    ranked = Reranker(model, index).rerank("a dog", [*DOCIDS, "unknown"])
    expected = ReferenceScorer(model).score("a dog", torch.from_numpy(index.fetch(DOCIDS).tokens))
    scores = {doc.docid: doc.score for doc in ranked if not doc.missing}
    assert [scores[docid] for docid in DOCIDS] == pytest.approx(expected.tolist(), abs=1e-4)
    assert ranked[-1].docid == "unknown" and ranked[-1].missing


@pytest.mark.parametrize(
    ("vectors", "error"),
    [
        (changed((3,), LISTS[3][:1]), r"'image-3' are 1 lists of 3 numbers: expected 2 lists of 3 numbers"),
        (changed((3, 1), [1.0, 2.0]), r"'image-3' are 2 lists of 2, 3 numbers: expected 2 lists of 3 numbers"),
        (changed((3,), None), r"'image-3' are 0 numbers"),
        (changed((3, 1), None), r"'image-3' are 2 lists of 0, 3 numbers"),
        (changed((3, 1, 2), None), r"'image-3' hold a number that is not finite"),
        (changed((3, 1, 2), float("nan")), r"'image-3' hold a number that is not finite"),
        (changed((3, 1, 2), -np.inf), r"'image-3' hold a number that is not finite"),
        (changed((3, 1, 2), 1e300), r"'image-3' hold a number that is not finite"),
        ([[0.0] * 6] * 6 + [[0.0] * 5], r"'image-6' are 5 numbers: expected 6 numbers"),
        ([["a"] * 6] * 7, r"must hold lists of numbers.*not list<element: string>"),
        ([1.0] * 7, r"must hold lists of numbers.*not double"),
        ([LISTS] * 7, r"must hold lists of numbers"),
    ],
)
def test_bad_vectors_are_refused_by_docid(
    model: MixLM, parquet: Callable[..., str], tmp_path: Path, vectors: Any, error: str
) -> None:
    with pytest.raises(InputError, match=error):
        TokenIndex.import_from(parquet(vectors), tmp_path / "index", model=model, progress=False)


@pytest.mark.parametrize(
    ("docids", "error"),
    [
        ([*DOCIDS[:6], "image-0"], "holds 'image-0', which came before"),
        ([*DOCIDS[:6], ""], "holds a docid of 0 bytes"),
        ([*DOCIDS[:6], None], "the column docid must hold strings"),
        (list(range(7)), "the column docid must hold strings"),
    ],
)
def test_bad_docids_are_refused(
    model: MixLM, parquet: Callable[..., str], tmp_path: Path, docids: list[Any], error: str
) -> None:
    with pytest.raises(InputError, match=error):
        TokenIndex.import_from(parquet(docids=docids), tmp_path / "index", model=model, progress=False)


@pytest.mark.parametrize(
    ("docids", "vectors", "error"),
    [
        (DOCIDS, VECTORS[:, :1], r"numbers \[7, 2, 3\]: documents, vectors a document, width, not float32 \[7, 1, 3\]"),
        (DOCIDS[:6], VECTORS, r"numbers \[6, 2, 3\].*not float32 \[7, 2, 3\]"),
        (DOCIDS, [[["a"] * 3] * 2] * 7, r"not <U1 \[7, 2, 3\]"),
        (DOCIDS, [*LISTS[:6], [[1.0]]], "vectors must be an array"),
        (DOCIDS, np.where(np.arange(3) == 1, np.nan, VECTORS), "'image-0' hold a number that is not finite"),
        ("image-0", VECTORS, "docids must be a list of strings"),
        ([], np.empty((0, 2, 3)), "holds no documents"),
    ],
)
def test_bad_arrays_are_refused(model: MixLM, tmp_path: Path, docids: Any, vectors: Any, error: str) -> None:
    with pytest.raises(InputError, match=error):
        TokenIndex.from_vectors(docids, vectors, model, tmp_path / "index", progress=False)


def test_an_interrupted_import_goes_on_with_the_same_file_only(
    model: MixLM, parquet: Callable[..., str], tmp_path: Path, index: TokenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BYTES", 3 * 4 * 6)
    whole, calls = LocalStore.append, iter([True, False])

    def append(*arguments: Any) -> None:
        if not next(calls):
            raise KeyboardInterrupt
        whole(*arguments)

    monkeypatch.setattr(LocalStore, "append", append)
    with pytest.raises(KeyboardInterrupt):
        TokenIndex.import_from(parquet(), tmp_path / "new", model=model, progress=False)
    monkeypatch.setattr(LocalStore, "append", whole)
    with pytest.raises(InputError, match="has changed since its import .* was interrupted"):
        TokenIndex.import_from(parquet(changed((1, 0, 0), 9.0)), tmp_path / "new", model=model, progress=False)
    there = TokenIndex.import_from(parquet(), tmp_path / "new", model=model, progress=False)
    assert there.digest() == index.digest() and len(there) == 7


def test_it_is_exported_and_comes_back(model: MixLM, index: TokenIndex, tmp_path: Path) -> None:
    index.export(str(tmp_path / "shards"), progress=False)
    there = TokenIndex.import_from(str(tmp_path / "shards"), tmp_path / "there", progress=False)
    assert there.digest() == index.digest() and there.manifest == index.manifest
    assert len(there.copy(tmp_path / "copy", progress=False)) == 7
    there.delete(["image-0"])
    there.compact(progress=False)
    np.testing.assert_array_equal(there.fetch(DOCIDS[1:]).tokens, index.fetch(DOCIDS[1:]).tokens)


@pytest.mark.parametrize("how", ["add", "replace", "sync"])
def test_texts_do_not_get_into_it(model: MixLM, index: TokenIndex, how: str) -> None:
    with pytest.raises(InputError, match="holds vectors of your own, and texts cannot be encoded for it"):
        getattr(index, how)([Document("a", "text")], model, progress=False)
    with pytest.raises(InputError, match="holds vectors of your own"):
        index.compare([Document("a", "text")])
    assert len(index) == 7


@pytest.mark.parametrize("documents", [list, iter])
def test_texts_make_none(model: MixLM, tmp_path: Path, documents: Callable[[list[Document]], Any]) -> None:
    with pytest.raises(InputError, match="encodes no texts: its documents are vectors of 3 numbers"):
        TokenIndex.build(documents([Document("a", "text")]), model, tmp_path / "index", progress=False)
    for options in ({}, {"missing": "encode"}):
        with pytest.raises(InputError, match="encodes no texts, its documents are vectors: give an index"):
            Reranker(model, **options)  # type: ignore[arg-type]


def test_a_model_that_reads_texts_takes_none(tiny: Callable[..., MixLM], index: TokenIndex, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads texts: for vectors make a model by mixlm-rerank model init --vectors"):
        TokenIndex.from_vectors(DOCIDS, VECTORS, tiny("bert"), tmp_path / "index", progress=False)
    with pytest.raises(IndexMismatch, match=r"holds 2 vectors of 3 numbers for each document, but .* reads texts"):
        Reranker(tiny("bert"), index)


def test_a_model_of_another_width_is_told_both(tiny: Callable[..., MixLM], index: TokenIndex) -> None:
    with pytest.raises(
        IndexMismatch, match=r"holds 2 vectors of 3 numbers for each document, but .* takes 1 of 4 numbers: give"
    ):
        Reranker(tiny("bert", vectors=4, tokens=1), index)


def test_the_commands(checkpoint: Callable[..., Path], mixlm: Any, parquet: Callable[..., str], tmp_path: Path) -> None:
    done = mixlm(
        f"model init {tmp_path}/model --vectors 3 --tokens 2 --ranker {checkpoint('bert')} --max-query-tokens 64"
    )
    assert done.code == 0 and "--vectors INDEX" in done.err
    done = mixlm(f"index import {parquet()} {tmp_path}/index --model {tmp_path}/model --quiet")
    assert done.code == 0 and "7 documents" in done.err
    assert "no text: documents are vectors" in mixlm(f"index info {tmp_path}/index").out
    for line, error in (
        (f"index import {parquet()} {tmp_path}/other", "Vectors of your own need --model"),
        (
            f"index import {tmp_path}/none.parquet {tmp_path}/other --model {tmp_path}/model",
            "cannot be read as Parquet",
        ),
        (f"index import {tmp_path}/model {tmp_path}/other --model {tmp_path}/model", "holds no Parquet files"),
        (f"index import {parquet()} {tmp_path}/index --model {tmp_path}/model", "is a token index already"),
    ):
        done = mixlm(line)
        assert done.code == 2 and error in done.err
    pq.write_table(pa.table({"id": DOCIDS, "vectors": LISTS}), tmp_path / "other.parquet")
    done = mixlm(f"index import {tmp_path}/other.parquet {tmp_path}/other --model {tmp_path}/model")
    assert done.code == 2 and "has no column 'docid'; it has id, vectors" in done.err
