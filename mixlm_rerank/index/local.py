"""The local store: an LMDB map docid -> row, and append-only segments of records.

A write appends records, syncs them, then commits their rows to LMDB. A reader uses the committed map, so it sees a
document's old state or its new one, never a mix; rows are never overwritten. One writer, many reader processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from ..arguments import check_list_of_strings
from ..errors import IndexDamaged, InputError, masked
from .environment import Environment, Stored, create_environment, writing
from .manifest import ABSENT, ENTRY, MAX_KEY_BYTES, MAX_ROWS, Fetched, Manifest, Packed, key_of, rows_of
from .segments import Segments

__all__ = ["LocalStore", "check_there", "disk_of"]


class LocalStore:
    """Opens the store in ``folder``.

    Args:
        whole: refuse a store whose segments are too short. False opens it for repair.

    Raises InputError if there is no store, IndexDamaged if it cannot be read.
    """

    def __init__(self, folder: Path, *, whole: bool = True) -> None:
        check_there(folder)
        self.folder = folder = folder.absolute()  # valid after a change of the working directory
        environment = Environment(folder)
        manifest = environment.get(b"manifest")
        if manifest is None:
            raise IndexDamaged(f"{folder} has no manifest: restore it, or delete it and rebuild")
        self.manifest = Manifest.loads(manifest, folder)
        self.quantiser = self.manifest.quantiser
        segments = self._segments(environment, environment.number(b"generation"))
        while whole:
            try:
                segments.open(environment.number(b"rows"))
                break
            except IndexDamaged:
                generation = environment.number(b"generation")
                if generation == segments.generation:
                    raise
                segments = self._segments(environment, generation)  # compacted meanwhile
        self._view = environment, segments

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> LocalStore:
        """Make an empty store in a folder that holds none. Raises InputError if it cannot be written."""
        with writing(folder, 0):
            folder.mkdir(parents=True, exist_ok=True)
            create_environment(folder, manifest.dumps())
        return cls(folder)

    @property
    def rows(self) -> int:
        """Committed rows: records ever written since the last compaction."""
        return self._view[0].number(b"rows")

    @property
    def segments(self) -> Segments:
        """The segments of records, in the generation that was seen last."""
        return self._view[1]

    def __len__(self) -> int:
        environment = self._followed()[0]
        with environment.transaction() as transaction:
            return int(transaction.stat(environment.docs)["entries"])

    def entries(self, docids: Sequence[str]) -> NDArray[np.void]:
        """Entries of the docid map, [n] of ``ENTRY``; row -1 for a docid that is not there.

        Raises InputError unless ``docids`` is a list of strings.
        """
        return self._look_up(docids)[0]

    def counts(self, entries: NDArray[np.void]) -> NDArray[np.int64]:
        """How many records each document has: int64 [n]; 0 for one that is absent."""
        found = (entries["row"] >= 0).astype(np.int64)
        return found * np.maximum(1 + entries["more"], 0) if self.manifest.passages else found  # the map may be damaged

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """See :class:`TokenStore`."""
        entries, segments = self._look_up(docids)
        while True:
            counts = self.counts(entries)
            try:
                records = segments.read(rows_of(entries["row"], counts))
                return Fetched(self.quantiser.unpack(records, tokens), counts, self.quantiser.titles(records))
            except IndexDamaged:
                entries, now = self._look_up(docids)
                if now is segments:
                    raise
                segments = now  # a compaction deleted segments that were not mapped yet

    def window(self, records: int) -> int:
        """How many documents have about ``records`` records together."""
        return max(1, records * len(self) // max(1, self.rows))

    def scan(self, window: int) -> Iterator[tuple[list[bytes], NDArray[np.void]]]:
        """All keys and entries in key order, in windows. They are one consistent state only under the writer lock."""
        environment = self._view[0]
        start = b""
        while True:
            with environment.transaction() as transaction, transaction.cursor(environment.docs) as cursor:
                if not (cursor.set_range(start) if start else cursor.first()):
                    return
                pairs = [(bytes(key), bytes(value)) for key, value in islice(cursor, window + 1)]
            keys, values = zip(*pairs[:window], strict=True)
            yield list(keys), _entries(values, self.folder)
            if len(pairs) <= window:
                return
            start = pairs[window][0]

    def packed(self, keys: Sequence[bytes], entries: NDArray[np.void]) -> Packed:
        """Documents as they are stored. Raises IndexDamaged if a record is gone."""
        counts = self.counts(entries)
        records = self.segments.read(rows_of(entries["row"], counts))
        entries = entries.copy()
        entries["row"] = counts.cumsum() - counts
        return Packed(keys, entries, records)

    def append(self, documents: Packed) -> None:
        """Write new or changed documents and commit them: all of them or, after a crash, none.

        Raises InputError if the disk or the index is full; what was committed before stays.
        """
        environment, segments = self._view
        first, entries = self.rows, documents.entries.copy()
        if first + len(documents.records) > MAX_ROWS:
            raise InputError(f"{self.folder} would have more than {MAX_ROWS:,} records: build several indexes")
        entries["row"] += first
        if not self.manifest.text_tokens:  # version 0.1 reads ``more`` as part of the row
            entries["more"] = 0
        pairs = [(key, entry.tobytes()) for key, entry in zip(documents.keys, entries, strict=True)]
        with writing(self.folder, len(self)):
            segments.append(first, documents.records)
            with environment.transaction(write=True) as transaction:
                with transaction.cursor(environment.docs) as cursor:
                    cursor.putmulti(sorted(pairs))
                transaction.put(b"rows", str(first + len(documents.records)).encode(), db=environment.meta)

    def remove(self, keys: Sequence[bytes]) -> None:
        """Remove these documents from the map in one step. Their records stay on disk until the next compaction."""
        environment = self._view[0]
        with writing(self.folder, len(self)), environment.transaction(write=True) as transaction:
            for key in keys:
                transaction.delete(key, db=environment.docs)

    def drop(self, keys: Sequence[bytes]) -> None:
        """:meth:`remove` damaged documents, and pad truncated segments to the lengths that they should have."""
        self.remove(keys)
        with writing(self.folder, len(self)):
            self.segments.pad(self.rows)

    def finish(self) -> None:
        """Mark the first build as complete. The files depend only on the documents, not on interruptions.

        Raises InputError if the disk is full; the documents stay.
        """
        manifest = replace(self.manifest, complete=True)
        with writing(self.folder, len(self)):
            self._view[0].rewrite(manifest.dumps())
        self.manifest = manifest

    def next_generation(self) -> Segments:
        """Segments of the next generation, to be filled and then passed to :meth:`switch`."""
        environment, present = self._view
        return self._segments(environment, present.generation + 1)

    def switch(self, segments: Segments, rows: NDArray[np.int64]) -> None:
        """Commit that the records of ``rows``, int64 [n] ascending, are now the first n of ``segments``."""
        environment = self._view[0]
        with writing(self.folder, len(self)), environment.transaction(write=True) as transaction:
            with transaction.cursor(environment.docs) as cursor:
                for key, value in cursor:
                    entry = np.frombuffer(value, dtype=ENTRY).copy()
                    entry["row"] = np.searchsorted(rows, entry["row"])
                    cursor.put(key, entry.tobytes())
            transaction.put(b"generation", str(segments.generation).encode(), db=environment.meta)
            transaction.put(b"rows", str(len(rows)).encode(), db=environment.meta)
        self._view = environment, segments
        segments.sweep()

    def _look_up(self, docids: Sequence[str]) -> tuple[NDArray[np.void], Segments]:
        """Entries [n], and the segments that hold their rows."""
        check_list_of_strings("docids", docids)
        environment, segments = self._followed()
        with environment.transaction() as transaction:
            generation = int(transaction.get(b"generation", db=environment.meta) or 0)
            get, docs = transaction.get, environment.docs
            try:  # fast path: nearly all docids are valid keys
                held = [get(docid.encode(), ABSENT, docs) for docid in docids]
            except (lmdb.BadValsizeError, UnicodeEncodeError, AttributeError):
                keys = map(key_of, docids)
                held = [get(key, ABSENT, docs) if 0 < len(key) <= MAX_KEY_BYTES else ABSENT for key in keys]
        if generation != segments.generation:  # compacted
            segments = self._segments(environment, generation)
            self._view = environment, segments
        return _entries(held, self.folder), segments

    def _followed(self) -> tuple[Environment, Segments]:
        """The current map and segments: those of an index of the same tokens, if one was built anew in this folder."""
        if self._view[0].moved:
            try:
                there = LocalStore(self.folder)
            except (IndexDamaged, InputError):
                return self._view  # not finished yet: keep the old map and segments
            if there.manifest.complete and there.manifest.same_tokens(self.manifest):
                self._view = there._view
        return self._view

    def _segments(self, environment: Environment, generation: int) -> Segments:
        size, rows = self.quantiser.record_bytes, self.manifest.rows_per_segment
        return Segments(self.folder, size, rows, generation, lambda: environment.moved)


def check_there(folder: Path) -> None:
    """Raises InputError if there is no index."""
    if not (folder / "data.mdb").is_file():
        place = masked(str(folder))  # it may be a Redis URL, given in place of a folder
        raise InputError(f"no token index at {place} (make one: mixlm-rerank index build CORPUS {place})")


def disk_of(folder: Path) -> int:
    """Disk space of all files in ``folder``, in bytes."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*") if path.is_file())


def _entries(values: Sequence[Stored], folder: Path) -> NDArray[np.void]:
    """Values of the docid map as entries [n]."""
    joined = b"".join(values)
    if len(joined) != len(values) * ENTRY.itemsize:
        raise IndexDamaged(f"the docid map in {folder} is damaged: restore it, or rebuild the index")
    return np.frombuffer(joined, dtype=ENTRY)
