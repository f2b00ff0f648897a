"""Token indexes of random embedding tokens, written by the store's own writer: real to read, and quick to make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np

from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.index.entries import Packed
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.index.lock import writer_lock
from mixlm_rerank.index.manifest import Manifest
from mixlm_rerank.index.plan import DOCID_MAP_BYTES, check_room
from mixlm_rerank.model import MixLM
from mixlm_rerank.progress import Progress
from mixlm_rerank.types import Document

__all__ = ["docid", "index_bytes", "manifest_for", "random_docids", "random_index"]

PRECISION = "int8"  # the default of an index
CHUNK = 4096  # documents a commit; 50 MB of float32 at 8 tokens of 384 dimensions


def docid(row: int) -> str:
    return f"d{row:07d}"


def random_docids(count: int, documents: int, draw: Random) -> list[str]:
    """Different docids of an index of so many documents, in random order."""
    return [docid(row) for row in draw.sample(range(documents), count)]


def index_bytes(manifest: Manifest, documents: int) -> int:
    """About what an index of so many documents takes on disk."""
    return documents * (manifest.quantiser.record_bytes + DOCID_MAP_BYTES)


def manifest_for(model: MixLM) -> Manifest:
    """Of an index of random tokens that ``model`` can read."""
    return new_manifest(model, PRECISION, "random tokens")


def random_index(folder: Path, manifest: Manifest, documents: int, *, bar: Progress | None = None) -> TokenIndex:
    """An index of standard normal embedding tokens; docids are :func:`docid` of 0, 1, ...

    Interrupted, it goes on where it stopped, to the same bytes; a finished one is opened. Raises InputError if the disk
    has no room for it.
    """
    if not (folder / "data.mdb").exists():
        check_room(index_bytes(manifest, documents), folder)
    with writer_lock(folder):
        store = LocalStore(folder) if (folder / "data.mdb").exists() else LocalStore.create(folder, manifest)
        for start, count in _chunks(store.rows, documents):
            tokens = np.random.default_rng(start).standard_normal(
                (count, store.manifest.tokens, store.manifest.dim), dtype=np.float32
            )
            store.append(Packed.of(_documents(range(start, start + count)), store.quantiser.pack(tokens)))
            if bar is not None:
                bar.update(count)
        if not store.manifest.complete:
            store.finish()
    return TokenIndex(folder)


def _chunks(done: int, documents: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of what is left to write; commits are whole chunks, so none is begun midway."""
    for start in range(done, documents, CHUNK):
        yield start, min(CHUNK, documents - start)


def _documents(rows: Sequence[int]) -> list[Document]:
    return [Document(docid(row), "") for row in rows]
