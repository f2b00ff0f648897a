"""Parquet shards of an index, at any place that fsspec can write to.

A shard has the columns ``docid`` (string), ``content`` (16 bytes: hash of the text), ``crc`` (uint32: over docid,
content and record), ``record`` (the document's tokens, packed by :class:`Quantiser`; in an index of passages one
record after the other) and, since format 3 and without passages, ``unread`` (int32: how many tokens of the text were
not read). ``index.json`` beside the shards holds the manifest and the shards' names, in order; it is written last, so
the shards that it names are complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ..errors import IndexDamaged, InputError, optional_import
from .manifest import ENTRY, Manifest, Packed, docid_of, key_of

__all__ = ["CATALOGUE", "Shards"]

CATALOGUE = "index.json"


class Shards:
    """The Parquet shards of an index in ``url``, a folder or a URL that fsspec supports. Raises MissingDependency."""

    def __init__(self, url: str) -> None:
        with optional_import("Parquet shards need pyarrow", "parquet"):
            import fsspec
            import pyarrow.parquet
        self.url = url if "://" in url else str(Path(url).absolute())  # workers have working directories of their own
        self._parquet = pyarrow.parquet
        self._arrow = pyarrow
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError(f"cannot open {url}: {error}") from None

    def prepare(self, own: re.Pattern[str]) -> None:
        """Make the folder. Raises InputError if it cannot be made, or holds files whose names do not match ``own``."""
        try:
            self._files.makedirs(self._root, exist_ok=True)
            strangers = [name for name in self._names() if not own.fullmatch(name)]
            if strangers:
                raise InputError(f"{self.url} holds {strangers[0]!r}, which is not of this: choose another place")
        except OSError as error:
            raise InputError(f"cannot write to {self.url}: {error}") from None

    def write(self, name: str, documents: Packed, manifest: Manifest) -> None:
        """Write one shard atomically. Writing it twice gives the same file."""
        schema = self._schema(manifest)
        values = {
            "docid": [_text(key) for key in documents.keys],
            "content": documents.contents(),
            "crc": documents.entries["crc"],
            "record": [own.tobytes() for own in documents.of_each()],
            "unread": documents.entries["more"],
        }
        table = self._arrow.table({column: values[column] for column in schema.names}, schema=schema)
        draft = self._path(f"{name}.{uuid4().hex[:8]}.part")
        with self._files.open(draft, "wb") as file:
            # Codes and hashes hardly compress: the small gain would cost the speed of the disk.
            self._parquet.write_table(table, file, compression="none", use_dictionary=False)
        self._files.mv(draft, self._path(name))

    def holds(self, name: str) -> bool:
        return bool(self._files.exists(self._path(name)))

    def clear(self, own: re.Pattern[str], kept: Collection[str] = ()) -> None:
        """Delete the files whose names match ``own``, except those ``kept``; and the folder if nothing is left."""
        for name in self._names():
            if own.fullmatch(name) and name not in kept:
                with suppress(FileNotFoundError):  # another process may have deleted it
                    self._files.rm(self._path(name))
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
                f"{self.url} holds no exported index ({CATALOGUE}: {error}): is the export finished? "
                "(Vectors of your own need --model)"
            ) from None

    def read(self, name: str, manifest: Manifest, window: int) -> Iterator[Packed]:
        """The documents of a shard. Raises IndexDamaged if it is not what was written."""
        try:
            with self._files.open(self._path(name), "rb") as file:
                whole = self._parquet.ParquetFile(file)
                if whole.schema_arrow.remove_metadata() != self._schema(manifest):
                    raise IndexDamaged(f"{self.url}/{name} has other columns than a shard of this index")
                for batch in whole.iter_batches(window):
                    if any(batch.column(place).null_count for place in range(batch.num_columns)):
                        raise IndexDamaged(f"{self.url}/{name} lacks values: export it again")
                    documents = _packed(batch, manifest)
                    wrong = np.flatnonzero(documents.checksums() != documents.entries["crc"])
                    if len(wrong):
                        raise IndexDamaged(
                            f"{self.url}/{name}: document {docid_of(documents.keys[wrong[0]])!r} is not what was "
                            "written; export it again"
                        )
                    yield documents
        except (OSError, KeyError, self._arrow.ArrowException) as error:
            raise IndexDamaged(f"{self.url}/{name} cannot be read ({error}): export it again") from None

    def tables(self) -> dict[str, int]:
        """The user's Parquet files, all in the folder or the one that ``url`` names, and their numbers of rows.

        Raises InputError if there are none, or one cannot be read.
        """
        folder = self._files.isdir(self._root)
        paths = sorted(self._files.glob(f"{self._root}/*.parquet")) if folder else [self._root]
        if not paths:
            raise InputError(f"{self.url} holds no Parquet files (*.parquet)")
        rows = {}
        for path in paths:
            with self._reading(path) as whole:
                rows[path] = whole.metadata.num_rows
        return rows

    def columns(self, path: str, names: Sequence[str], window: int) -> Iterator[list[Any]]:
        """The columns ``names`` of a file, ``window`` rows at a time. Raises InputError if one is not there."""
        with self._reading(path) as whole:
            lacking = [name for name in names if name not in whole.schema_arrow.names]
            if lacking:
                has = ", ".join(whole.schema_arrow.names)
                raise InputError(f"{path} has no column {lacking[0]!r}; it has {has}")
            for batch in whole.iter_batches(window, columns=list(names)):
                yield [batch.column(name) for name in names]

    @contextmanager
    def _reading(self, path: str) -> Iterator[Any]:
        """An open Parquet file. Raises InputError if it cannot be read."""
        try:
            with self._files.open(path, "rb") as file:
                yield self._parquet.ParquetFile(file)
        except (OSError, self._arrow.ArrowException) as error:
            raise InputError(f"{path} cannot be read as Parquet: {error}") from None

    def _schema(self, manifest: Manifest) -> Any:
        arrow = self._arrow
        record = arrow.large_binary() if manifest.passages else arrow.binary(manifest.quantiser.record_bytes)
        columns = {"docid": arrow.string(), "content": arrow.binary(16), "crc": arrow.uint32(), "record": record}
        if manifest.text_tokens and not manifest.passages:
            columns["unread"] = arrow.int32()
        return arrow.schema(list(columns.items()))

    def _names(self) -> list[str]:
        """Names of all files in the folder."""
        return [path.rstrip("/").rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _packed(batch: Any, manifest: Manifest) -> Packed:
    """Documents of a batch of rows. Raises IndexDamaged for an incomplete record."""
    size, values = manifest.quantiser.record_bytes, batch.column("record").to_pylist()
    counts, rest = np.divmod(np.array([len(value) for value in values], dtype=np.int64), size)
    if rest.any() or not counts.all():
        raise IndexDamaged(f"a shard holds a record of another size than {size} bytes: export it again")
    entries = np.zeros(len(values), dtype=ENTRY)
    entries["row"] = counts.cumsum() - counts
    entries["more"] = batch.column("unread") if "unread" in batch.schema.names else counts - 1
    entries["crc"] = batch.column("crc")
    entries["content"] = batch.column("content").to_pylist()
    records = np.frombuffer(b"".join(values), np.uint8).reshape(-1, size)
    return Packed([key_of(docid) for docid in batch.column("docid").to_pylist()], entries, records)


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise InputError(f"docid {docid_of(key)!r} is no valid Unicode: Parquet cannot hold it") from None
