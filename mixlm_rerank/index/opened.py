"""An open index: read its documents, size and checksums; compact, copy and verify it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..folders import replacing
from ..progress import progress_bar
from .environment import writing
from .local import LocalStore, check_there, disk_of
from .lock import held_still, open_complete, open_to_write, writer_lock
from .manifest import Fetched, Manifest, docid_of, rows_of
from .plan import DOCID_MAP_BYTES, check_room

__all__ = ["IndexInfo", "OpenedIndex", "Verification"]

WINDOW = 2048  # records in memory at a time
SCANNED = 1 << 16  # entries of the docid map in memory at a time


@dataclass(frozen=True)
class IndexInfo:
    """Size and identity of an index."""

    path: str  # the folder
    documents: int
    records: int  # live ones; an index of passages has more records than documents
    dead: int  # records of documents that were deleted or replaced since the last compaction
    bytes: int  # disk space of all files together
    # Documents that were cut because they are longer than the item encoder reads; None: unknown (an earlier version
    # built the index)
    cut: int | None
    unread: int  # tokens of these documents that were not read
    manifest: Manifest  # what identifies the index: item encoder, shape, precision, corpus

    @property
    def bytes_per_document(self) -> float:
        return self.bytes / max(self.documents, 1)

    @property
    def share_read(self) -> float:
        """Share of tokens read, over the documents that were cut."""
        read = (self.cut or 0) * self.manifest.text_tokens
        return read / (read + self.unread) if self.unread else 1.0


@dataclass(frozen=True)
class Verification:
    """The result of checking every document."""

    documents: int  # how many there are
    damaged: dict[str, str]  # docid -> what is wrong, for each damaged document


class OpenedIndex:
    """The methods of :class:`TokenIndex` that need no model."""

    def __init__(self, path: str | Path) -> None:
        self._store = open_complete(Path(path))
        self.path = self._store.folder

    @property
    def manifest(self) -> Manifest:
        return self._store.manifest

    def __str__(self) -> str:
        return str(self.path)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        """Pickled as its path: another process opens it anew."""
        return type(self), (self.path,)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, docid: str) -> bool:
        return bool(self._store.entries([docid])["row"][0] >= 0)

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """Embedding tokens of many documents; the last ``tokens`` of each, or all for ``None``."""
        return self._store.fetch(docids, tokens)

    def info(self) -> IndexInfo:
        """Size and identity of the index. Reads the whole docid map."""
        store, manifest = self._store, self.manifest
        documents = records = cut = unread = 0
        for _, entries in store.scan(SCANNED):
            lost = entries["more"] * (not manifest.passages)
            documents, records = documents + len(entries), records + int(store.counts(entries).sum())
            cut, unread = cut + int((lost > 0).sum()), unread + int(lost.sum())
        known, dead = cut if manifest.text_tokens else None, store.rows - records
        return IndexInfo(str(self.path), documents, records, dead, disk_of(self.path), known, unread, manifest)

    def digest(self) -> str:
        """Hash of all documents, in 16 hexadecimal digits; independent of the order in which they were written."""
        found = hashlib.blake2b(digest_size=8)
        for _, entries in self._store.scan(SCANNED):
            found.update(entries["crc"].tobytes())
        return found.hexdigest()

    def compact(self, *, progress: bool = True) -> int:
        """Free the space of deleted and replaced documents without interrupting readers. Returns the bytes saved.

        Needs disk space for a second copy. Raises InputError if there is too little, or if another process writes.
        """
        with open_to_write(self.path) as store:
            before, rows = disk_of(self.path), _live_rows(store)
            if len(rows) == store.rows:
                return 0
            check_room(len(rows) * (store.quantiser.record_bytes + DOCID_MAP_BYTES), self.path)
            segments, safe = store.next_generation(), writing(self.path, len(store))
            with safe, progress_bar(len(rows), "compact", "documents", enabled=progress) as bar:
                for start in range(0, len(rows), WINDOW):
                    records = store.segments.read(rows[start : start + WINDOW])
                    segments.append(start, records)
                    bar.update(len(records))
            store.switch(segments, rows)
            return before - disk_of(self.path)

    def copy(self, path: str | Path, *, progress: bool = True) -> Self:
        """Make a compact copy in a new folder. Raises InputError if the folder exists or the disk is too full."""
        target = Path(path)
        if target.exists():
            raise InputError(f"{target} exists already: choose a new folder for the copy")
        with writing(target, 0), held_still(self.path), replacing(target) as draft:
            store = open_complete(self.path)
            check_room(len(_live_rows(store)) * (store.quantiser.record_bytes + DOCID_MAP_BYTES), target)
            there = LocalStore.create(draft, replace(store.manifest, complete=False))
            with progress_bar(len(store), "copy", "documents", enabled=progress) as bar:
                for keys, entries in store.scan(store.window(WINDOW)):
                    there.append(store.packed(keys, entries))
                    bar.update(len(keys))
            there.finish()
            del there  # close it: its folder is about to be renamed
        return type(self)(target)

    @staticmethod
    def verify(path: str | Path, *, drop: bool = False, progress: bool = True) -> Verification:
        """Check every document against its checksum, even in an index that is too damaged to be opened.

        Args:
            path: folder of the index.
            drop: remove the damaged documents; ``sync`` encodes them again.
            progress: show a progress bar on stderr.

        Raises InputError if there is no index, IndexDamaged if its docid map or manifest cannot be read.
        """
        folder = Path(path)
        check_there(folder)
        with writer_lock(folder) if drop else held_still(folder):
            store = LocalStore(folder, whole=False)
            bad: dict[bytes, str] = {}
            with progress_bar(len(store), "verify", "documents", enabled=progress) as bar:
                for keys, entries in store.scan(store.window(WINDOW)):
                    bad.update(_damaged(store, keys, entries))
                    bar.update(len(keys))
            found = Verification(len(store), {docid_of(key): why for key, why in bad.items()})
            if drop:
                store.drop(list(bad))
            return found


def _live_rows(store: LocalStore) -> NDArray[np.int64]:
    """Rows of all documents' records, int64 [n], ascending."""
    rows = [rows_of(entries["row"], store.counts(entries)) for _, entries in store.scan(SCANNED)]
    return np.sort(np.concatenate(rows)) if rows else np.empty(0, dtype=np.int64)


def _damaged(store: LocalStore, keys: list[bytes], entries: NDArray[np.void]) -> dict[bytes, str]:
    counts = store.counts(entries)
    here = (counts > 0) & (entries["row"] + counts <= store.rows)
    readable = store.segments.held(rows_of(entries["row"][here], counts[here]))
    here[np.repeat(np.flatnonzero(here), counts[here])[~readable]] = False
    found = {keys[place]: "its record is gone" for place in np.flatnonzero(~here)}
    places = np.flatnonzero(here)
    documents = store.packed([keys[place] for place in places], entries[places])
    wrong = places[documents.checksums() != entries["crc"][places]]
    return found | {keys[place]: "its checksum is another" for place in wrong}
