"""What the docid map holds of a document: where its record lies, of which text it is, and a checksum over all of it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..types import Document

__all__ = ["ABSENT", "ENTRY", "MAX_KEY_BYTES", "checksums", "content_hash", "docid_of", "entries_of", "key_of"]

MAX_KEY_BYTES = 511  # LMDB's

ENTRY = np.dtype([("row", "<i8"), ("crc", "<u4"), ("content", "V16")])
ABSENT = np.array([(-1, 0, b"")], dtype=ENTRY).tobytes()


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


def checksums(keys: Sequence[bytes], contents: Sequence[bytes], records: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """CRC-32 over docid, content hash and record of each document: uint32 [n]."""
    triples = zip(keys, contents, records, strict=True)
    values = [zlib.crc32(record.data, zlib.crc32(key + content)) for key, content, record in triples]
    return np.array(values, dtype=np.uint32)


def entries_of(
    keys: Sequence[bytes], contents: Sequence[bytes], records: NDArray[np.uint8], first_row: int
) -> NDArray[np.void]:
    """Entries [n] of ``ENTRY`` for records that lie in neighbouring rows from ``first_row`` on."""
    entries = np.zeros(len(keys), dtype=ENTRY)
    entries["row"] = np.arange(first_row, first_row + len(keys))
    entries["crc"] = checksums(keys, contents, records)
    entries["content"] = list(contents)
    return entries
