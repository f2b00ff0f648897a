"""Whatever happens to its files, what is damaged is named, and the rest can be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from mixlm_rerank import TokenIndex
from mixlm_rerank.errors import IndexDamaged
from mixlm_rerank.index import segments
from mixlm_rerank.index.manifest import ENTRY
from mixlm_rerank.index.updates import Changes

DOCIDS = [f"d{number}" for number in range(20)]


@pytest.fixture
def folder(tmp_path: Path, stub: Any, corpus: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents d0 to d19 in segments of 8, 8 and 4 records of 30 bytes."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 8 * 30)
    TokenIndex.build(corpus(20), stub(), tmp_path / "index", progress=False)
    return tmp_path / "index"


def damaged(folder: Path, *, drop: bool = False) -> dict[str, str]:
    return TokenIndex.verify(folder, drop=drop, progress=False).damaged


def mended(folder: Path, stub: Any, corpus: Any, lost: list[str]) -> None:
    """Without the damaged documents the rest can be read; a sync brings them back."""
    assert sorted(damaged(folder, drop=True)) == sorted(lost)
    index = TokenIndex(folder)
    kept = [docid for docid in DOCIDS if docid not in lost]
    assert index.fetch(DOCIDS).found.tolist() == [docid in kept for docid in DOCIDS]
    expected = stub().encode([f"text number {docid[1:]}" for docid in DOCIDS])
    np.testing.assert_allclose(index.fetch(kept).tokens, expected[[int(docid[1:]) for docid in kept]], atol=0.02)
    assert index.sync(corpus(20), stub(), progress=False) == Changes(new=len(lost), unchanged=len(kept))
    np.testing.assert_allclose(index.fetch(DOCIDS).tokens, expected, atol=0.02)
    assert not damaged(folder)


def test_nothing_is_wrong_with_a_new_index(folder: Path) -> None:
    found = TokenIndex.verify(folder, progress=False)
    assert (found.documents, found.damaged) == (20, {})


@pytest.mark.parametrize("byte", [0, 29, 30, 100, 239])
def test_a_flipped_byte(folder: Path, stub: Any, corpus: Any, byte: int) -> None:
    path = folder / "tokens-000001.bin"
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    assert damaged(folder) == {f"d{8 + byte // 30}": "its checksum is another"}
    mended(folder, stub, corpus, [f"d{8 + byte // 30}"])


@pytest.mark.parametrize("size", [0, 1, 119, 239])
def test_a_truncated_segment(folder: Path, stub: Any, corpus: Any, size: int) -> None:
    os.truncate(folder / "tokens-000001.bin", size)
    lost = [f"d{8 + number}" for number in range(size // 30, 8)]
    with pytest.raises(IndexDamaged, match=r"tokens-000001.bin holds .*index verify .* --drop"):
        TokenIndex(folder)
    assert damaged(folder) == dict.fromkeys(lost, "its record is gone")
    mended(folder, stub, corpus, lost)


def test_a_lost_segment(folder: Path, stub: Any, corpus: Any) -> None:
    (folder / "tokens-000002.bin").unlink()
    mended(folder, stub, corpus, ["d16", "d17", "d18", "d19"])


def test_a_torn_tail_is_none_of_the_index(folder: Path) -> None:
    with (folder / "tokens-000002.bin").open("ab") as file:
        file.write(b"\xff" * 77)
    assert not damaged(folder)
    assert TokenIndex(folder).fetch(DOCIDS).found.all()


@pytest.mark.parametrize("part", ["row", "crc", "content", "docid"])
def test_a_flipped_byte_in_the_docid_map(folder: Path, part: str) -> None:
    with lmdb.open(str(folder), max_dbs=4) as env:
        docs = env.open_db(b"docs", create=False)
        with env.begin(write=True, db=docs) as transaction:
            value = bytearray(transaction.get(b"d5"))
            if part == "docid":
                transaction.delete(b"d5")
            else:
                value[ENTRY.fields[part][1]] ^= 1
            transaction.put(b"D5" if part == "docid" else b"d5", bytes(value))
    assert list(damaged(folder)) == ["D5" if part == "docid" else "d5"]
    damaged(folder, drop=True)
    assert len(TokenIndex(folder)) == 19


def test_a_row_past_the_end_is_gone(folder: Path) -> None:
    with lmdb.open(str(folder), max_dbs=4) as env:
        docs = env.open_db(b"docs", create=False)
        with env.begin(write=True, db=docs) as transaction:
            value = np.frombuffer(transaction.get(b"d5"), ENTRY).copy()
            value["row"] = 1 << 30
            transaction.put(b"d5", value.tobytes())
    assert damaged(folder) == {"d5": "its record is gone"}


def test_random_bytes_in_the_docid_map_are_told_or_harmless(folder: Path, forked: Any) -> None:
    """LMDB keeps no checksums: a page of it may be damaged beyond reading, but never read as other tokens unnoticed."""
    whole = (folder / "data.mdb").read_bytes()
    expected = TokenIndex(folder).fetch(DOCIDS).tokens.tobytes()
    draw = np.random.default_rng(0)

    def look() -> None:
        try:
            assert damaged(folder) or TokenIndex(folder).fetch(DOCIDS).tokens.tobytes() == expected
        except IndexDamaged:
            pass

    for place in draw.integers(len(whole), size=25).tolist():
        content = bytearray(whole)
        content[place] ^= 1 << int(draw.integers(8))
        (folder / "data.mdb").unlink()
        (folder / "data.mdb").write_bytes(content)
        assert os.waitpid(forked(look), 0)[1] == 0
