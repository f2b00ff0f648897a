"""What is stored of a document: its records, and an entry in the docid map: where they lie, of which text, a checksum.

A document has one record; in an index of passages one for each passage, in neighbouring rows.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..types import Document

__all__ = ["ABSENT", "ENTRY", "MAX_KEY_BYTES", "MAX_ROWS", "Packed", "content_hash", "docid_of", "key_of", "rows_of"]

MAX_KEY_BYTES = 511  # LMDB's
MAX_ROWS = 1 << 31

# ``row``: of the first record; -1: absent. ``more``: in an index of passages, how many records follow the first; else
# how many tokens of the text were not read. Format 2 has one number of 64 bits for the two: ``more`` is 0 in it.
ENTRY = np.dtype([("row", "<i4"), ("more", "<i4"), ("crc", "<u4"), ("content", "V16")])
ABSENT = np.array([(-1, 0, 0, b"")], dtype=ENTRY).tobytes()


def key_of(docid: str) -> bytes:
    """The docid as a key of the map: UTF-8, lone surrogates too. Raises InputError for what is no string."""
    if not isinstance(docid, str):
        raise InputError(f"docids must be strings, not {docid!r}")
    return docid.encode("utf-8", "surrogatepass")


def docid_of(key: bytes) -> str:
    """The docid of a key. What is no UTF-8 (a damaged map) is shown escaped."""
    try:
        return key.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return key.decode("utf-8", "backslashreplace")


def content_hash(document: Document, *, titled: bool = False) -> bytes:
    """16 bytes that change when the text that the item encoder reads changes.

    ``titled``: the ranker reads the title, so they also change when title and text are divided in another place.
    """
    text = f"{document.title}\0{document.text}" if titled else document.content
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class Packed:
    """Documents as they are stored, n of them, with m records."""

    keys: Sequence[bytes]  # of the docid map
    entries: NDArray[np.void]  # [n] of ``ENTRY``; rows are places in ``records``, ascending from 0
    records: NDArray[np.uint8]  # [m, record_bytes]

    @classmethod
    def of(
        cls,
        documents: Sequence[Document],
        records: NDArray[np.uint8],
        counts: Sequence[int] | None = None,
        unread: Sequence[int] | int = 0,
        *,
        titled: bool = False,
    ) -> Packed:
        """``counts``: how many of the records each document has; by default one. ``titled``: of the content hash."""
        entries = np.zeros(len(documents), dtype=ENTRY)
        of_each = np.array(counts or [1] * len(documents))
        entries["row"] = of_each.cumsum() - of_each
        entries["more"] = of_each - 1 + np.array(unread)  # one of the two is 0
        entries["content"] = [content_hash(document, titled=titled) for document in documents]
        packed = cls([key_of(document.docid) for document in documents], entries, records)
        entries["crc"] = packed.checksums()
        return packed

    def __len__(self) -> int:
        return len(self.keys)

    def since(self, first: int) -> Packed:
        """Without the first documents."""
        entries = self.entries[first:].copy()
        start = int(entries["row"][0])
        entries["row"] -= start
        return Packed(self.keys[first:], entries, self.records[start:])

    def contents(self) -> list[bytes]:
        """A hash of each text."""
        return [content.tobytes() for content in self.entries["content"]]

    def of_each(self) -> list[NDArray[np.uint8]]:
        """The records of each document."""
        ends = pairwise([*self.entries["row"].tolist(), len(self.records)])
        return [self.records[start:end] for start, end in ends]

    def checksums(self) -> NDArray[np.uint32]:
        """CRC-32 over docid, content hash and records of each document: uint32 [n]."""
        triples = zip(self.keys, self.contents(), self.of_each(), strict=True)
        values = [zlib.crc32(records.data, zlib.crc32(key + content)) for key, content, records in triples]
        return np.array(values, dtype=np.uint32)


def rows_of(first: NDArray[np.int32], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of documents that begin at ``first`` and have ``counts`` records. int32 [n], int64 [n] -> [sum of counts].

    >>> rows_of(np.array([7, 2]), np.array([2, 3])).tolist()
    [7, 8, 2, 3, 4]
    """
    before = counts.cumsum() - counts
    return np.repeat(first - before, counts) + np.arange(counts.sum())
