"""The local store: an LMDB map docid -> row, and append-only segments of records.

A write appends records, syncs them, then commits their rows to LMDB. A reader goes by the committed map, so it sees a
document's old state or its new one, never a torn one; rows are never overwritten. One writer, many reader processes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from ..errors import IndexDamaged, InputError
from ..types import Document
from .environment import MAX_KEY_BYTES, Environment, create_environment
from .manifest import Manifest
from .protocol import Fetched
from .quantiser import Quantiser
from .segments import Segments

__all__ = ["LocalStore", "content_hash"]

# An entry of the docid map: where the record lies, its checksum, and the hash of the text that it came from.
ENTRY = np.dtype([("row", "<i8"), ("crc", "<u4"), ("content", "V16")])
ABSENT = np.array([(-1, 0, b"")], dtype=ENTRY).tobytes()


def content_hash(document: Document) -> bytes:
    """16 bytes that change when the text that the item encoder reads changes."""
    return hashlib.blake2b(document.content.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class LocalStore:
    """Opens the store in ``folder``. Raises InputError if there is none, IndexDamaged if it cannot be read."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "data.mdb").is_file():
            raise InputError(f"no token index at {folder} (make one: mixlm-rerank index build CORPUS {folder})")
        self.folder = folder
        self._environment = Environment(folder)
        with self._environment.transaction() as transaction:
            manifest = transaction.get(b"manifest", db=self._environment.meta)
        if manifest is None:
            raise IndexDamaged(f"{folder} has no manifest: restore it, or delete it and rebuild")
        self.manifest = Manifest.loads(bytes(manifest), folder)
        self.quantiser = Quantiser(self.manifest.precision, self.manifest.tokens, self.manifest.dim)
        self._segments = Segments(folder, self.quantiser.record_bytes, self.manifest.rows_per_segment)
        self._segments.open(self.rows)

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> LocalStore:
        """An empty store in a folder that holds none. Raises InputError if it cannot be written."""
        with _writing(folder, 0):
            folder.mkdir(parents=True, exist_ok=True)
            create_environment(folder, manifest.dumps())
        return cls(folder)

    @property
    def rows(self) -> int:
        """Committed rows: documents ever written."""
        with self._environment.transaction() as transaction:
            return int(transaction.get(b"rows", db=self._environment.meta) or 0)

    def __len__(self) -> int:
        with self._environment.transaction() as transaction:
            return int(transaction.stat(self._environment.docs)["entries"])

    @property
    def bytes(self) -> int:
        """Disk space of all files."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.iterdir() if path.is_file())

    def entries(self, docids: Sequence[str]) -> NDArray[np.void]:
        """Entries of the docid map, [n] of ``ENTRY``; row -1 for a docid that is not there."""
        keys = [docid.encode("utf-8", "surrogatepass") for docid in docids]
        with self._environment.transaction() as transaction, transaction.cursor(self._environment.docs) as cursor:
            held = dict(cursor.getmulti([key for key in keys if 0 < len(key) <= MAX_KEY_BYTES]))
        return np.frombuffer(b"".join(held.get(key, ABSENT) for key in keys), dtype=ENTRY)

    def holds(self, document: Document, row: int) -> bool:
        """Whether this very document, with this text, is the one in ``row``."""
        entry = self.entries([document.docid])[0]
        return bool(entry["row"] == row and entry["content"].tobytes() == content_hash(document))

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """See :class:`TokenStore`."""
        rows = self.entries(docids)["row"]
        found = rows >= 0
        return Fetched(self.quantiser.unpack(self._segments.read(rows[found]), tokens), found)

    def append(self, documents: Sequence[Document], tokens: NDArray[np.float32]) -> None:
        """Write new documents and commit them: all of them or, after a crash, none.

        Raises InputError if the disk is full; what was committed before stays.
        """
        records = self.quantiser.pack(tokens)
        first = self.rows
        entries = np.zeros(len(documents), dtype=ENTRY)
        entries["row"] = np.arange(first, first + len(documents))
        entries["crc"] = [zlib.crc32(record.data) for record in records]
        entries["content"] = [content_hash(document) for document in documents]
        pairs = [
            (document.docid.encode("utf-8", "surrogatepass"), entry.tobytes())
            for document, entry in zip(documents, entries, strict=True)
        ]
        with _writing(self.folder, first):
            self._segments.append(first, records)
            with self._environment.transaction(write=True) as transaction:
                with transaction.cursor(self._environment.docs) as cursor:
                    cursor.putmulti(sorted(pairs))
                transaction.put(b"rows", str(first + len(documents)).encode(), db=self._environment.meta)

    def finish(self) -> None:
        """Mark the first build as complete. The files depend on the documents alone, not on interruptions.

        Raises InputError if the disk is full; the documents stay.
        """
        manifest = replace(self.manifest, complete=True)
        with _writing(self.folder, self.rows):
            self._environment.rewrite(manifest.dumps())
        self.manifest = manifest


@contextmanager
def _writing(folder: Path, safe: int) -> Iterator[None]:
    """A failed write said in words."""
    try:
        yield
    except (OSError, lmdb.Error) as error:
        raise InputError(
            f"cannot write to {folder} ({error}): disk full? {safe} documents are safe in it; make room and "
            "run the same command again to go on"
        ) from None
