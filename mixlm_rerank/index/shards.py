"""Parquet shards of an index, at any place that fsspec can write to.

A shard has the columns ``docid`` (string), ``content`` (16 bytes: hash of the text), ``crc`` (uint32: over docid,
content and record) and ``record`` (the document's tokens, packed as :class:`Quantiser` says). ``index.json`` beside the
shards holds the manifest and their names, in order; it is written last, so what it names is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from ..errors import IndexDamaged, InputError, MissingDependency
from ..types import Document
from .entries import checksums, docid_of, key_of
from .manifest import Manifest

__all__ = ["CATALOGUE", "Shards"]

CATALOGUE = "index.json"


class Shards:
    """The Parquet shards of an index in ``url``, a folder or whatever fsspec knows. Raises MissingDependency."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
            import pyarrow.parquet
        except ImportError:
            raise MissingDependency("Parquet shards need pyarrow: pip install 'mixlm-rerank[parquet]'") from None
        self.url = url
        self._parquet = pyarrow.parquet
        self._arrow = pyarrow
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InputError(f"cannot open {url}: {error}") from None

    def prepare(self) -> None:
        """Make the folder. Raises InputError if it cannot be made."""
        try:
            self._files.makedirs(self._root, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.url}: {error}") from None

    def write(
        self, name: str, keys: Sequence[bytes], contents: Sequence[bytes], records: NDArray[np.uint8], crcs: Any = None
    ) -> None:
        """One shard; written twice, it is the same."""
        arrow, size = self._arrow, records.shape[1]
        table = arrow.table(
            {
                "docid": arrow.array([_text(key) for key in keys], arrow.string()),
                "content": arrow.array(list(contents), arrow.binary(16)),
                "crc": arrow.array(checksums(keys, contents, records) if crcs is None else crcs, arrow.uint32()),
                "record": arrow.FixedSizeBinaryArray.from_buffers(
                    arrow.binary(size), len(records), [None, arrow.py_buffer(np.ascontiguousarray(records))]
                ),
            }
        )
        # Codes and hashes do not compress: what little there is to gain would cost the speed of the disk.
        self._put(name, table, compression="none", use_dictionary=False)

    def write_documents(self, name: str, documents: Sequence[Document]) -> None:
        """Documents that are to be encoded elsewhere."""
        keys = [key_of(document.docid) for document in documents]
        texts = [document.content.encode("utf-8", "surrogatepass") for document in documents]
        binary = self._arrow.binary()
        self._put(
            name, self._arrow.table({"key": self._arrow.array(keys, binary), "text": self._arrow.array(texts, binary)})
        )

    def read_documents(self, name: str) -> list[Document]:
        """What :meth:`write_documents` wrote; titles are part of the texts."""
        with self._files.open(self._path(name), "rb") as file:
            columns = self._parquet.read_table(file).to_pydict()
        return [
            Document(docid_of(key), text.decode("utf-8", "surrogatepass"))
            for key, text in zip(columns["key"], columns["text"], strict=True)
        ]

    def holds(self, name: str) -> bool:
        return bool(self._files.exists(self._path(name)))

    def remove(self, name: str) -> None:
        """Delete one file, if it is there."""
        with suppress(FileNotFoundError):
            self._files.rm(self._path(name))

    def delete(self) -> None:
        """Delete all of it."""
        self._files.rm(self._root, recursive=True)

    def finish(self, manifest: Manifest, names: Sequence[str], documents: int) -> None:
        """Write the catalogue."""
        catalogue = {"manifest": json.loads(manifest.dumps()), "shards": list(names), "documents": documents}
        with self._files.open(self._path(CATALOGUE), "w") as file:
            json.dump(catalogue, file, indent=1)

    def catalogue(self) -> tuple[Manifest, list[str], int]:
        """Manifest, names of the shards in order, number of documents. Raises InputError if there is none."""
        try:
            with self._files.open(self._path(CATALOGUE)) as file:
                held = json.load(file)
            manifest = Manifest.loads(json.dumps(held["manifest"]).encode(), self.url)
            return manifest, list(held["shards"]), int(held["documents"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.url} holds no exported index ({CATALOGUE}: {error}): is the export finished?"
            ) from None

    def read(self, name: str, window: int) -> Iterator[tuple[list[bytes], list[bytes], NDArray[np.uint8]]]:
        """Keys, content hashes and records of a shard. Raises IndexDamaged if it is not what was written."""
        try:
            with self._files.open(self._path(name), "rb") as file:
                for batch in self._parquet.ParquetFile(file).iter_batches(window):
                    keys = [key_of(docid) for docid in batch.column("docid").to_pylist()]
                    contents = batch.column("content").to_pylist()
                    column = batch.column("record")
                    size = column.type.byte_width
                    flat = np.frombuffer(column.buffers()[1], np.uint8, len(column) * size, column.offset * size)
                    records = flat.reshape(len(column), size)
                    wrong = np.flatnonzero(checksums(keys, contents, records) != batch.column("crc").to_numpy())
                    if len(wrong):
                        raise IndexDamaged(
                            f"{self.url}/{name}: document {docid_of(keys[wrong[0]])!r} is not what was written; "
                            "export it again"
                        )
                    yield keys, contents, records
        except (OSError, KeyError, self._arrow.ArrowException) as error:
            raise IndexDamaged(f"{self.url}/{name} cannot be read ({error}): export it again") from None

    def _put(self, name: str, table: Any, **options: Any) -> None:
        """One file of Parquet: it appears whole, or not at all, whoever else writes the same."""
        draft = self._path(f"{name}.{uuid4().hex[:8]}.part")
        with self._files.open(draft, "wb") as file:
            self._parquet.write_table(table, file, **options)
        self._files.mv(draft, self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise InputError(f"docid {docid_of(key)!r} is no valid Unicode: Parquet cannot hold it") from None
