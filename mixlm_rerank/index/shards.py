"""Parquet shards of an index, at any place that fsspec can write to.

A shard has the columns ``docid`` (string), ``content`` (16 bytes: hash of the text), ``crc`` (uint32: over docid,
content and record) and ``record`` (the document's tokens, packed as :class:`Quantiser` says). ``index.json`` beside the
shards holds the manifest and their names, in order; it is written last, so what it names is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
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
COLUMNS = ("docid", "content", "crc", "record")


class Shards:
    """The Parquet shards of an index in ``url``, a folder or whatever fsspec knows. Raises MissingDependency."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
            import pyarrow.parquet
        except ImportError:
            raise MissingDependency("Parquet shards need pyarrow", "parquet") from None
        self.url = url if "://" in url else str(Path(url).absolute())  # workers have working directories of their own
        self._parquet = pyarrow.parquet
        self._arrow = pyarrow
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError(f"cannot open {url}: {error}") from None

    def prepare(self, own: re.Pattern[str]) -> None:
        """Make the folder. Raises InputError if it cannot be made, or holds files that are not one's ``own``."""
        try:
            self._files.makedirs(self._root, exist_ok=True)
            strangers = [name for name in self._names() if not own.fullmatch(name)]
            if strangers:
                raise InputError(f"{self.url} holds {strangers[0]!r}, which is not of this: choose another place")
        except OSError as error:
            raise InputError(f"cannot write to {self.url}: {error}") from None

    def write(
        self, name: str, keys: Sequence[bytes], contents: Sequence[bytes], records: NDArray[np.uint8], crcs: Any = None
    ) -> None:
        """One shard; written twice, it is the same."""
        arrow, size = self._arrow, records.shape[1]
        packed = [None, arrow.py_buffer(np.ascontiguousarray(records))]
        columns = [
            arrow.array([_text(key) for key in keys], arrow.string()),
            arrow.array(list(contents), arrow.binary(16)),
            arrow.array(checksums(keys, contents, records) if crcs is None else crcs, arrow.uint32()),
            arrow.FixedSizeBinaryArray.from_buffers(arrow.binary(size), len(records), packed),
        ]
        table = arrow.table(columns, schema=self._schema(size))
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

    def clear(self, own: re.Pattern[str], kept: Collection[str] = ()) -> None:
        """Delete one's ``own`` files but those that are ``kept``, and the folder if nothing is left."""
        for name in self._names():
            if own.fullmatch(name) and name not in kept:
                self.remove(name)
        if not self._names():
            self._files.rmdir(self._root)

    def finish(self, manifest: Manifest, names: Sequence[str], documents: int) -> None:
        """Write the catalogue."""
        catalogue = {"manifest": json.loads(manifest.dumps()), "shards": list(names), "documents": documents}
        draft = self._path(f"{CATALOGUE}.{uuid4().hex[:8]}.part")
        with self._files.open(draft, "w") as file:
            json.dump(catalogue, file, indent=1)
        self._files.mv(draft, self._path(CATALOGUE))

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

    def read(
        self, name: str, record_bytes: int, window: int
    ) -> Iterator[tuple[list[bytes], list[bytes], NDArray[np.uint8]]]:
        """Keys, content hashes and records of a shard. Raises IndexDamaged if it is not what was written."""
        try:
            with self._files.open(self._path(name), "rb") as file:
                whole = self._parquet.ParquetFile(file)
                if whole.schema_arrow.remove_metadata() != self._schema(record_bytes):
                    raise IndexDamaged(f"{self.url}/{name} has other columns than a shard of this index")
                for batch in whole.iter_batches(window):
                    if any(batch.column(place).null_count for place in range(batch.num_columns)):
                        raise IndexDamaged(f"{self.url}/{name} lacks values: export it again")
                    keys = [key_of(docid) for docid in batch.column("docid").to_pylist()]
                    contents = batch.column("content").to_pylist()
                    column = batch.column("record")
                    count, offset = len(column) * record_bytes, column.offset * record_bytes
                    records = np.frombuffer(column.buffers()[1], np.uint8, count, offset).reshape(-1, record_bytes)
                    wrong = np.flatnonzero(checksums(keys, contents, records) != batch.column("crc").to_numpy())
                    if len(wrong):
                        raise IndexDamaged(
                            f"{self.url}/{name}: document {docid_of(keys[wrong[0]])!r} is not what was written; "
                            "export it again"
                        )
                    yield keys, contents, records
        except (OSError, KeyError, self._arrow.ArrowException) as error:
            raise IndexDamaged(f"{self.url}/{name} cannot be read ({error}): export it again") from None

    def _schema(self, record_bytes: int) -> Any:
        arrow = self._arrow
        types = [arrow.string(), arrow.binary(16), arrow.uint32(), arrow.binary(record_bytes)]
        return arrow.schema(list(zip(COLUMNS, types, strict=True)))

    def _names(self) -> list[str]:
        """Names of all files there."""
        return [path.rstrip("/").rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]

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
