"""Indexes that version 0.1 built (format 2) open, stay as they are byte for byte, and are kept up to date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.index.local import LocalStore

OLD = Path(__file__).parent / "format-2"  # d0 to d4, by the stub; and its export
LONG = Document("long", "word " * 500)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(OLD / "index", tmp_path / "index")


def texts(index: TokenIndex, stub: Any, count: int) -> None:
    expected = stub().encode([f"text number {number}" for number in range(count)])
    np.testing.assert_allclose(index.fetch([f"d{number}" for number in range(count)]).tokens, expected, atol=0.02)


def test_it_opens_and_is_not_touched(folder: Path, stub: Any, corpus: Any) -> None:
    index = TokenIndex(folder)
    texts(index, stub, 5)
    assert index.compare(corpus(5)).unchanged == 5 and not TokenIndex.verify(folder, progress=False).damaged
    info = index.info()
    assert (info.documents, info.records, info.dead, info.cut, info.unread) == (5, 5, 0, None, 0)
    for path in (OLD / "index").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_what_is_written_to_it_is_of_format_2(folder: Path, stub: Any, corpus: Any) -> None:
    """Version 0.1 knows no ``more``: it would take it for a part of the row."""
    index = TokenIndex(folder)
    index.sync([*corpus(7), LONG], stub(), progress=False)
    index.delete(["d6"])
    index.compact(progress=False)
    texts(index, stub, 6)
    manifest = json.loads(LocalStore(folder).manifest.dumps())
    assert manifest["format_version"] == 2 and not manifest.keys() & {"passages", "text_tokens"}
    ((_, entries),) = LocalStore(folder).scan(100)
    assert entries["more"].tolist() == [0] * 7
    assert index.info().cut is None


def test_a_copy_and_an_export_of_it_are_of_format_2(folder: Path, stub: Any, tmp_path: Path) -> None:
    index = TokenIndex(folder)
    assert index.copy(tmp_path / "copy", progress=False).manifest == index.manifest
    index.export(str(tmp_path / "shards"), progress=False)
    old, new = (pq.read_table(folder / "part-000000.parquet") for folder in (OLD / "shards", tmp_path / "shards"))
    assert new.equals(old) and new.schema == old.schema
    assert (tmp_path / "shards" / "index.json").read_text() == (OLD / "shards" / "index.json").read_text()


def test_its_shards_are_imported(tmp_path: Path, stub: Any) -> None:
    index = TokenIndex.import_from(str(OLD / "shards"), tmp_path / "imported", progress=False)
    texts(index, stub, 5)
    assert index.manifest.format_version == 2


def test_a_build_that_version_0_1_has_begun_goes_on(folder: Path, stub: Any, corpus: Any) -> None:
    store = LocalStore(folder)
    store._view[0].rewrite(store.manifest.dumps().replace(b'"complete": true', b'"complete": false'))
    index = TokenIndex.build([*corpus(8), LONG], stub(), folder, corpus="corpus.jsonl", progress=False)
    texts(index, stub, 8)
    assert index.manifest.format_version == 2 and index.info().cut is None
