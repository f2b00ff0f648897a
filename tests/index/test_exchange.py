"""An index travels as Parquet shards and comes back byte for byte; what is cut short or altered is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.errors import IndexDamaged, InputError
from mixlm_rerank.index import exchange
from mixlm_rerank.index.local import LocalStore

DOCIDS = [f"d{number}" for number in range(20)]


@pytest.fixture
def index(tmp_path: Path, stub: Any, corpus: Any, monkeypatch: pytest.MonkeyPatch) -> TokenIndex:
    """20 documents, exported in shards of 8 and imported in windows of 3."""
    monkeypatch.setattr(exchange, "SHARD_BYTES", 8 * 30)
    monkeypatch.setattr(exchange, "WINDOW", 3)
    return TokenIndex.build(corpus(20), stub(), tmp_path / "index", progress=False)


@pytest.fixture
def shards(index: TokenIndex, tmp_path: Path) -> Path:
    index.export(str(tmp_path / "shards"), progress=False)
    return tmp_path / "shards"


def stored(folder: Path) -> tuple[bytes, bytes]:
    """Records and content hashes of all documents."""
    store = LocalStore(folder)
    entries = store.entries(DOCIDS)
    return store.segments.read(entries["row"]).tobytes(), entries["content"].tobytes()


def test_exported_and_imported_it_is_the_same(index: TokenIndex, shards: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in shards.iterdir()) == ["index.json"] + [
        f"part-00000{n}.parquet" for n in range(3)
    ]
    there = TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)
    assert stored(there.path) == stored(index.path)
    assert there.manifest == index.manifest
    assert not TokenIndex.verify(there.path, progress=False).damaged


def test_any_url_of_fsspec_will_do(index: TokenIndex, tmp_path: Path) -> None:
    index.export("memory://shards", progress=False)
    there = TokenIndex.import_from("memory://shards", tmp_path / "imported", progress=False)
    assert stored(there.path) == stored(index.path)


def test_the_shards_can_be_read_without_us(shards: Path, stub: Any) -> None:
    """As docs/token-index.md says: codes, then a scale for each 64 components of a vector, which has 8 here."""
    table = pq.read_table(shards / "part-000000.parquet")
    assert table.schema.names == ["docid", "content", "crc", "record", "unread"]
    record = table["record"][0].as_py()
    codes = np.frombuffer(record, np.int8, 24).reshape(3, 8)
    scales = (np.frombuffer(record, np.uint16, offset=24).astype(np.uint32) << 16).view(np.float32)
    text = f"text number {table['docid'][0].as_py()[1:]}"
    np.testing.assert_allclose(codes * scales[:, None], stub().encode([text])[0], atol=0.02)


def test_an_interrupted_import_goes_on(
    index: TokenIndex, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LocalStore.append
    left = 3

    def append(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        whole(*arguments)

    monkeypatch.setattr(LocalStore, "append", append)
    with pytest.raises(KeyboardInterrupt):
        TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)
    monkeypatch.setattr(LocalStore, "append", whole)
    monkeypatch.setattr(exchange, "WINDOW", 5)  # windows need not fall where they fell
    with pytest.raises(IndexDamaged, match=r"half built \(8 documents\).*index import"):
        TokenIndex(tmp_path / "imported")
    there = TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)
    assert stored(there.path) == stored(index.path)


def test_an_unfinished_export_is_refused(shards: Path, tmp_path: Path) -> None:
    (shards / "index.json").unlink()
    with pytest.raises(InputError, match=r"holds no exported index \(index.json: .*is the export finished"):
        TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"manifest": {}, "shards": [], "documents": 0}', "null"])
def test_a_broken_catalogue_is_refused(shards: Path, tmp_path: Path, content: str) -> None:
    (shards / "index.json").write_text(content)
    with pytest.raises((InputError, IndexDamaged), match="shards"):
        TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)


def test_a_shard_that_was_altered_cut_or_lost_is_named(shards: Path, tmp_path: Path) -> None:
    path = shards / "part-000001.parquet"
    whole = path.read_bytes()
    table = pq.read_table(path)
    docids = table["docid"].to_pylist()
    altered = table.set_column(0, "docid", pa.array(["other", *docids[1:]], pa.string()))
    pq.write_table(altered, path)
    with pytest.raises(IndexDamaged, match=r"part-000001.parquet: document 'other' is not what was written"):
        TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IndexDamaged, match=r"part-000001.parquet cannot be read"):
        TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)
    path.unlink()
    with pytest.raises(IndexDamaged, match=r"part-000001.parquet cannot be read"):
        TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)
    path.write_bytes(whole)
    assert len(TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)) == 20


def test_a_shard_named_twice_or_not_at_all_is_noticed(shards: Path, tmp_path: Path) -> None:
    catalogue = json.loads((shards / "index.json").read_text())
    names = catalogue["shards"]
    for wrong, error in ((names + names[:1], "which came before"), (names[:2], "holds 16 documents, its index.json")):
        (shards / "index.json").write_text(json.dumps(catalogue | {"shards": wrong}))
        with pytest.raises((InputError, IndexDamaged), match=error):
            TokenIndex.import_from(str(shards), tmp_path / error, progress=False)


def test_nothing_is_overwritten(index: TokenIndex, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds an exported index already"):
        index.export(str(shards), progress=False)
    with pytest.raises(InputError, match="is a token index already"):
        TokenIndex.import_from(str(shards), index.path, progress=False)
    with pytest.raises(InputError, match="is not empty and not a token index"):
        TokenIndex.import_from(str(shards), shards, progress=False)


def test_a_docid_that_parquet_cannot_hold_is_named(tmp_path: Path, stub: Any) -> None:
    index = TokenIndex.build([Document("\ud800", "text")], stub(), tmp_path / "index", progress=False)
    with pytest.raises(InputError, match="is no valid Unicode: Parquet cannot hold it"):
        index.export(str(tmp_path / "shards"), progress=False)


def test_a_place_that_cannot_be_opened(index: TokenIndex, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot open nothing://x"):
        index.export("nothing://x", progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"):
        index.export(str(tmp_path / "file"), progress=False)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("docid", pa.array([1] * 8)),
        ("docid", pa.array([None, *"abcdefg"], pa.string())),
        ("content", pa.array([b"x"] * 8, pa.binary())),
        ("crc", pa.array([None] * 8, pa.uint32())),
        ("record", pa.array([b"x" * 30] * 8, pa.binary())),
        ("record", pa.array([b"x" * 20] * 8, pa.binary(20))),
    ],
)
def test_a_shard_of_another_make_is_refused(shards: Path, tmp_path: Path, column: str, values: Any) -> None:
    path = shards / "part-000000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.names.index(column), column, values), path)
    with pytest.raises(IndexDamaged, match=r"part-000000.parquet (has other columns|lacks values)"):
        TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)


@pytest.mark.parametrize(("field", "value"), [("tokens", 2), ("tokens", "3"), ("dim", 0), ("rows_per_segment", 0)])
def test_a_catalogue_with_other_numbers_is_refused(shards: Path, tmp_path: Path, field: str, value: object) -> None:
    catalogue = json.loads((shards / "index.json").read_text())
    catalogue["manifest"][field] = value
    (shards / "index.json").write_text(json.dumps(catalogue))
    with pytest.raises(IndexDamaged, match="impossible numbers|has other columns"):
        TokenIndex.import_from(str(shards), tmp_path / "imported", progress=False)


def test_an_export_that_was_killed_starts_over_and_clears_up(index: TokenIndex, shards: Path) -> None:
    (shards / "index.json").unlink()
    (shards / "part-000009.parquet").touch()
    (shards / "part-000001.parquet.0a1b2c3d.part").touch()
    index.export(str(shards), progress=False)
    assert sorted(path.name for path in shards.iterdir()) == ["index.json"] + [
        f"part-00000{number}.parquet" for number in range(3)
    ]
    (shards / "index.json").unlink()
    (shards / "notes.txt").touch()
    with pytest.raises(InputError, match="holds 'notes.txt', which is not of this"):
        index.export(str(shards), progress=False)
