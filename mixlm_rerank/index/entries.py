"""What is stored of a document: its records, and an entry in the docid map: where they lie, of which text, a checksum.

A document has one record; in an index of passages one for each passage, in neighbouring rows.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arguments import check_strings
from ..errors import InputError
from ..types import Document

__all__ = [
    "ABSENT",
    "ENTRY",
    "MAX_KEY_BYTES",
    "STORED",
    "Packed",
    "check_docids",
    "content_hash",
    "docid_of",
    "key_of",
    "moved",
    "rows_of",
    "unpacked",
]

MAX_KEY_BYTES = 511  # LMDB's

# A value of the docid map. The lower 40 bits of ``place`` are the row, the upper ones ``more``.
STORED = np.dtype([("place", "<i8"), ("crc", "<u4"), ("content", "V16")])
ROW_BITS = 40
ABSENT = np.array([(-1, 0, b"")], dtype=STORED).tobytes()

# The same in memory. ``row``: of the first record; -1: absent. ``more``: in an index of passages, how many records
# follow the first; else how many tokens of the text were not read.
ENTRY = np.dtype([("row", "<i8"), ("more", "<i8"), ("crc", "<u4"), ("content", "V16")])


def check_docids(docids: Sequence[str]) -> None:
    """Raises InputError for one string, whose letters would be taken for docids, or a docid that is no string."""
    check_strings("docids", docids)
    for docid in docids:
        if not isinstance(docid, str):
            raise InputError(f"docids must be strings, not {docid!r}")


def key_of(docid: str) -> bytes:
    """The docid as a key of the map: UTF-8, lone surrogates too."""
    return docid.encode("utf-8", "surrogatepass")


def docid_of(key: bytes) -> str:
    """The docid of a key. What is no UTF-8 (a damaged map) is shown escaped."""
    try:
        return key.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return key.decode("utf-8", "backslashreplace")


def content_hash(document: Document) -> bytes:
    """16 bytes that change when the text that the item encoder reads changes."""
    return hashlib.blake2b(document.content.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class Packed:
    """Documents as they are stored; a slice of them is one, too.

    Attributes:
        keys: of the docid map, n of them.
        contents: a hash of each text.
        records: uint8 [m, record_bytes], those of the first document, of the second, and so on.
        counts: int64 [n], how many records each document has.
        unread: int64 [n], how many tokens of each text were not read, because it is too long.
    """

    keys: Sequence[bytes]
    contents: Sequence[bytes]
    records: NDArray[np.uint8]
    counts: NDArray[np.int64]
    unread: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice) -> Packed:
        start, stop, _ = part.indices(len(self))
        ends = np.concatenate([[0], self.counts.cumsum()])
        return Packed(
            self.keys[part],
            self.contents[part],
            self.records[ends[start] : ends[stop]],
            self.counts[part],
            self.unread[part],
        )

    @classmethod
    def of(
        cls,
        documents: Sequence[Document],
        records: NDArray[np.uint8],
        counts: Sequence[int] | None = None,
        unread: Sequence[int] | None = None,
    ) -> Packed:
        """``counts``: by default one record each; ``unread``: by default all is read."""
        n = len(documents)
        keys, contents = [key_of(each.docid) for each in documents], [content_hash(each) for each in documents]
        return cls(keys, contents, records, np.array(counts or [1] * n), np.array(unread or [0] * n))

    @classmethod
    def joined(cls, parts: Sequence[Packed]) -> Packed:
        keys, contents = ([value for part in parts for value in getattr(part, name)] for name in ("keys", "contents"))
        arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in ("records", "counts", "unread")]
        return cls(keys, contents, *arrays)

    def of_each(self) -> Sequence[NDArray[np.uint8]]:
        """The records of each document."""
        if len(self.records) == len(self):
            return self.records  # type: ignore[return-value]  # its rows
        return np.split(self.records, self.counts.cumsum()[:-1])

    def checksums(self) -> NDArray[np.uint32]:
        """CRC-32 over docid, content hash and records of each document: uint32 [n]."""
        triples = zip(self.keys, self.contents, self.of_each(), strict=True)
        values = [zlib.crc32(records.data, zlib.crc32(key + content)) for key, content, records in triples]
        return np.array(values, dtype=np.uint32)

    def pairs(self, first_row: int) -> list[tuple[bytes, bytes]]:
        """Keys and values of the docid map, for records that lie from ``first_row`` on."""
        stored = np.empty(len(self), dtype=STORED)
        rows = first_row + self.counts.cumsum() - self.counts
        stored["place"] = rows | (self.counts - 1 + self.unread) << ROW_BITS  # one of the two is 0
        stored["crc"] = self.checksums()
        stored["content"] = list(self.contents)
        return [(key, value.tobytes()) for key, value in zip(self.keys, stored, strict=True)]


def unpacked(values: bytes) -> NDArray[np.void]:
    """Values of the docid map, joined -> entries [n] of ``ENTRY``."""
    stored = np.frombuffer(values, dtype=STORED)
    entries = np.empty(len(stored), dtype=ENTRY)
    absent = stored["place"] < 0
    entries["row"] = np.where(absent, -1, stored["place"] & (1 << ROW_BITS) - 1)
    entries["more"] = np.where(absent, 0, stored["place"] >> ROW_BITS)
    for name in ("crc", "content"):
        entries[name] = stored[name]
    return entries


def moved(value: bytes, rows: NDArray[np.int64]) -> bytes:
    """A value of the docid map after a compaction that keeps ``rows``, int64 [n] ascending."""
    place = int.from_bytes(value[:8], "little")
    more, row = divmod(place, 1 << ROW_BITS)
    return (more << ROW_BITS | int(np.searchsorted(rows, row))).to_bytes(8, "little") + value[8:]


def rows_of(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of documents that begin at ``first`` and have ``counts`` records. int64 [n], [n] -> [sum of counts].

    >>> rows_of(np.array([7, 2]), np.array([2, 3])).tolist()
    [7, 8, 2, 3, 4]
    """
    before = counts.cumsum() - counts
    return np.repeat(first - before, counts) + np.arange(counts.sum())
