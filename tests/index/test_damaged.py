"""What is not a whole token index is not read, and what is one is not overwritten; the message says what to do."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import lmdb
import pytest

from mixlm_rerank import TokenIndex
from mixlm_rerank.errors import IndexDamaged, InputError
from mixlm_rerank.index import segments
from mixlm_rerank.index.lock import writer_lock


@pytest.fixture
def folder(tmp_path: Path, stub: Any, corpus: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole index of 20 documents: segments of 8, 8 and 4 records of 30 bytes."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 8 * 30)
    TokenIndex.build(corpus(20), stub(), tmp_path / "index", progress=False)
    return tmp_path / "index"


@pytest.mark.parametrize(("segment", "held", "committed"), [(0, 7, 8), (1, 0, 8), (2, 3, 4)])
def test_a_truncated_segment(folder: Path, segment: int, held: int, committed: int) -> None:
    path = folder / f"tokens-00000{segment}.bin"
    os.truncate(path, held * 30 + 29)
    with pytest.raises(IndexDamaged, match=f"{path} holds {held} documents, {committed} were committed: restore it"):
        TokenIndex(folder)


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_a_missing_segment(folder: Path, segment: int) -> None:
    (folder / f"tokens-00000{segment}.bin").unlink()
    with pytest.raises(IndexDamaged, match=f"tokens-00000{segment}.bin holds 0 documents"):
        TokenIndex(folder)


def write_manifest(folder: Path, data: bytes | None) -> None:
    with lmdb.open(str(folder), max_dbs=4) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin(write=True, db=meta) as transaction:
            transaction.delete(b"manifest") if data is None else transaction.put(b"manifest", data)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads(TokenIndex(folder).manifest.dumps())


@pytest.mark.parametrize("version", [1, 4])
def test_a_manifest_of_another_format_version(folder: Path, version: int) -> None:
    write_manifest(folder, json.dumps(manifest(folder) | {"format_version": version}).encode())
    with pytest.raises(IndexDamaged, match=f"has index format {version}; this release reads formats 2 and 3. Rebuild"):
        TokenIndex(folder)


def test_a_manifest_with_wrong_keys(folder: Path) -> None:
    fields = manifest(folder) | {"colour": "blue"}
    del fields["tokens"]
    write_manifest(folder, json.dumps(fields).encode())
    with pytest.raises(IndexDamaged, match="a manifest with the wrong keys: .*'colour'"):
        TokenIndex(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"{}"])
def test_an_unreadable_manifest(folder: Path, data: bytes) -> None:
    write_manifest(folder, data)
    with pytest.raises(IndexDamaged, match="has an unreadable manifest"):
        TokenIndex(folder)


def test_a_missing_manifest(folder: Path, stub: Any, corpus: Any) -> None:
    write_manifest(folder, None)
    with pytest.raises(IndexDamaged, match="has no manifest"):
        TokenIndex(folder)
    with pytest.raises(IndexDamaged, match="has no manifest"):
        TokenIndex.build(corpus(20), stub(), folder, progress=False)


@pytest.mark.parametrize("data", [b"", b"not an LMDB file" * 1000])
def test_a_docid_map_that_is_none(folder: Path, data: bytes) -> None:
    (folder / "data.mdb").write_bytes(data)
    with pytest.raises(IndexDamaged, match=f"{folder} is not a token index|the docid map in {folder} cannot be opened"):
        TokenIndex(folder)


def test_an_lmdb_environment_of_another_program_is_left_alone(tmp_path: Path, stub: Any, corpus: Any) -> None:
    with lmdb.open(str(tmp_path / "other"), max_dbs=4) as env, env.begin(write=True) as transaction:
        transaction.put(b"key", b"value", db=env.open_db(b"theirs", transaction))
    before = (tmp_path / "other" / "data.mdb").read_bytes()
    with pytest.raises(IndexDamaged, match="other is not a token index"):
        TokenIndex(tmp_path / "other")
    with pytest.raises(IndexDamaged, match="other is not a token index"):
        TokenIndex.build(corpus(20), stub(), tmp_path / "other", progress=False)
    assert (tmp_path / "other" / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("name", ["nothing here", ".", "a file"])
def test_no_index_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(InputError, match=r"no token index at .* \(make one: mixlm-rerank index build CORPUS "):
        TokenIndex(tmp_path / name)


def test_a_folder_of_foreign_files_is_refused_and_left_alone(tmp_path: Path, stub: Any, corpus: Any) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and not a token index \(it holds 'notes.txt'\)"):
        TokenIndex.build(corpus(20), stub(), tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, stub: Any, corpus: Any) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "index"):
        with pytest.raises(InputError, match=f"cannot write a token index to {path}: "):
            TokenIndex.build(corpus(20), stub(), path, progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_complete_index_is_not_overwritten(folder: Path, stub: Any, corpus: Any, contents: Any) -> None:
    before = contents(folder, corpus(20))
    for model in (stub(), stub(fingerprint="another encoder")):
        with pytest.raises(InputError, match=f"{folder} is a complete token index already: delete it first"):
            TokenIndex.build(corpus(30), model, folder, progress=False)
    assert contents(folder, corpus(20)) == before


def test_a_second_writer_is_told_who_holds_the_index(tmp_path: Path, stub: Any, corpus: Any, forked: Any) -> None:
    folder, ready = tmp_path / "index", tmp_path / "ready"

    def hold() -> None:
        with writer_lock(folder):
            ready.touch()
            signal.pause()

    holder = forked(hold)
    while not ready.exists():
        time.sleep(0.001)
    with pytest.raises(InputError, match=rf"is being written by another process: .*\"pid\": {holder}, \"host\""):
        TokenIndex.build(corpus(20), stub(), folder, progress=False)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert len(TokenIndex.build(corpus(20), stub(), folder, progress=False)) == 20  # the lock died with its holder
