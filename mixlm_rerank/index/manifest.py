"""The data of a token index: a manifest (encoder, shape, whether complete) and, for each document, its records and an
entry in the docid map (row, hash of the text, checksum). And what an index returns to a reranker.

A document has one record or, in an index of passages, one record for each passage, in consecutive rows.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import IndexDamaged, IndexMismatch, InputError
from ..types import Document, Model
from .quantiser import Quantiser

__all__ = ["ABSENT", "ENTRY", "MAX_KEY_BYTES", "MAX_ROWS", "Fetched", "Manifest", "Packed", "TokenStore"]
__all__ += ["content_hash", "docid_of", "key_of", "rows_of"]

MAX_KEY_BYTES = 511  # LMDB's limit
MAX_ROWS = 1 << 31

# ``row``: that of the first record; -1: absent. ``more``: in an index of passages, how many records follow the first;
# else how many tokens of the text were not read. Format 2 has one 64-bit row in place of both, so ``more`` is 0 there.
ENTRY = np.dtype([("row", "<i4"), ("more", "<i4"), ("crc", "<u4"), ("content", "V16")])
ABSENT = np.array([(-1, 0, 0, b"")], dtype=ENTRY).tobytes()

# 2: checksums cover docid and content hash too; generations of segments.
# 3: ``passages``, ``text_tokens``, ``more`` in entries, int8 in blocks. Indexes of format 2 lack these and stay so.
FORMAT_VERSIONS = (2, 3)


@dataclass(frozen=True)
class Manifest:
    """What identifies an index, and how its records are laid out."""

    fingerprint: str  # of the item encoder that made the tokens
    model: str  # its name or folder when the index was built, for messages
    tokens: int  # per document, whose shape is [tokens, dim]
    dim: int
    precision: str  # of the stored tokens: "int8", "float16" or "float32"
    corpus: str  # where the documents came from, for messages
    rows_per_segment: int  # records in a full segment file
    complete: bool = False  # False until the first build is finished
    format_version: int = FORMAT_VERSIONS[-1]
    passages: bool = False  # long documents are split into passages with a record each; else they are cut
    text_tokens: int = 0  # most tokens of text read for one record; 0: unknown (format 2), or documents are vectors
    title_tokens: int = 0  # most tokens of a title kept for the ranker

    @property
    def quantiser(self) -> Quantiser:
        """Packs and unpacks the records of this index."""
        return Quantiser(self.precision, self.tokens, self.dim, self.format_version < 3, self.title_tokens)

    def content_hash(self, document: Document) -> bytes:
        """16-byte hash that changes when the stored records of a document may change."""
        return content_hash(document, titled=self.title_tokens > 0)

    @property
    def kind(self) -> str:
        """Encoder, precision and passages in a string: indexes with equal strings store a document alike."""
        blocks = "-blocks" * (self.precision == "int8" and not self.quantiser.whole_vectors)
        return f"{self.fingerprint}-{self.precision}{blocks}" + "-passages" * self.passages

    @property
    def build_options(self) -> str:
        """Options of the command ``index build``, in addition to corpus, folder and model."""
        return f"--precision {self.precision}" + " --passages" * self.passages

    @property
    def of_vectors(self) -> bool:
        """Whether documents are vectors of the user's own, for which no text was read."""
        return self.format_version > 2 and not self.text_tokens

    def check_model(self, model: Model, where: Path | str) -> None:
        """Raises IndexMismatch unless ``model`` has the item encoder that built this index."""
        if model.accepts(self.fingerprint):
            return
        if self.of_vectors:
            width = model.config.vectors
            taken = f"takes {model.config.tokens} of {width} numbers" if width else "reads texts"
            raise IndexMismatch(
                f"{where} holds {self.tokens} vectors of {self.dim} numbers for each document, but {model.name} "
                f"{taken}: give the model that they were imported for ({self.model})"
            )
        raise IndexMismatch(
            f"{where} was built by item encoder {self.fingerprint} ({self.model}), but this model's item "
            f"encoder is {model.fingerprint} ({model.name}). Rebuild it: "
            f"mixlm-rerank index build {self.corpus} NEW_INDEX --model {model.name} {self.build_options}"
        )

    def same_tokens(self, other: Manifest) -> bool:
        """Whether indexes with these two manifests store a document alike."""
        return (self.kind, self.tokens, self.dim) == (other.kind, other.tokens, other.dim)

    def dumps(self) -> bytes:
        """As JSON. Omits ``passages``, ``text_tokens`` and ``title_tokens`` if 0: version 0.1 does not know them."""
        later = ("passages", "text_tokens", "title_tokens")
        values = {name: value for name, value in asdict(self).items() if value or name not in later}
        return json.dumps(values, sort_keys=True).encode()

    @classmethod
    def loads(cls, data: bytes | str, where: Path | str) -> Manifest:
        """Raises IndexDamaged if ``data`` is not a manifest in a format that this release reads."""
        try:
            values = json.loads(data)
            version = values["format_version"]
        except (ValueError, TypeError, KeyError):
            raise IndexDamaged(f"{where} has an unreadable manifest") from None
        if version not in FORMAT_VERSIONS:
            raise IndexDamaged(
                f"{where} has index format {version}; this release reads formats "
                f"{' and '.join(map(str, FORMAT_VERSIONS))}. Rebuild the index, or use the release that built it"
            )
        try:
            manifest = cls(**values)
        except TypeError as error:
            raise IndexDamaged(f"{where} has a manifest with the wrong keys: {error}") from None
        shape = (manifest.tokens, manifest.dim, manifest.rows_per_segment, manifest.title_tokens)
        if not all(type(number) is int and number >= least for number, least in zip(shape, (1, 1, 1, 0), strict=True)):
            raise IndexDamaged(f"{where} has a manifest with impossible numbers: {shape}")
        return manifest


def key_of(docid: str) -> bytes:
    """The docid as a key of the docid map: UTF-8, lone surrogates too. Raises InputError if it is not a string."""
    if not isinstance(docid, str):
        raise InputError(f"docids must be strings, not {docid!r}")
    return docid.encode("utf-8", "surrogatepass")


def docid_of(key: bytes) -> str:
    """The docid of a key. Bytes that are not UTF-8 (in a damaged map) are escaped."""
    try:
        return key.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return key.decode("utf-8", "backslashreplace")


def content_hash(document: Document, *, titled: bool = False) -> bytes:
    """16-byte hash that changes when the text that the item encoder reads changes.

    ``titled``: the ranker reads the title, so the hash also depends on where the title ends and the text begins.
    """
    text = f"{document.title}\0{document.text}" if titled else document.content
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class Packed:
    """n documents as they are stored, with m records."""

    keys: Sequence[bytes]  # keys of the docid map
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
        """``counts``: how many of the records each document has; by default one. ``titled``: see content_hash."""
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
        """The documents from number ``first`` on."""
        entries = self.entries[first:].copy()
        start = int(entries["row"][0])
        entries["row"] -= start
        return Packed(self.keys[first:], entries, self.records[start:])

    def contents(self) -> list[bytes]:
        """The content hash of each document."""
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


@dataclass(frozen=True, slots=True)
class Fetched:
    """Embedding tokens of some docids."""

    # [m, k, d], of the documents that were found, in the order asked for; a document's passages are consecutive
    tokens: NDArray[np.float32]
    counts: NDArray[np.int64]  # [n], how many of the m belong to each docid asked for; 0: it was not found
    titles: NDArray[np.int32] | None = None  # [m, t], token ids of titles, -1 after their end; None in an index without

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether each docid was found: bool [n]."""
        return self.counts > 0


class TokenStore(Protocol):
    """A read view of a token index: a local folder, a shared cache. ``str(store)`` names it in messages."""

    @property
    def manifest(self) -> Manifest: ...

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """Embedding tokens of many documents at once; the last ``tokens`` of each (all of them for ``None``)."""
        ...
