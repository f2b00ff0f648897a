"""An index written anew, without the records of deleted and replaced documents: in its place, or in another folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..folders import replacing
from ..progress import progress_bar
from .entries import rows_of
from .local import LocalStore, writing
from .lock import held_still
from .plan import DOCID_MAP_BYTES, check_room
from .writer import open_complete, open_to_write

__all__ = ["compact", "copy"]

WINDOW = 2048


def compact(folder: Path, *, progress: bool) -> int:
    """See :meth:`TokenIndex.compact`."""
    with open_to_write(folder) as store:
        before, rows = store.disk, _live_rows(store)
        if len(rows) == store.rows:
            return 0
        check_room(_size(store, len(rows)), folder)
        segments = store.next_generation()
        with writing(folder, len(store)), progress_bar(len(rows), "compact", "documents", enabled=progress) as bar:
            for start in range(0, len(rows), WINDOW):
                records = store.records(rows[start : start + WINDOW])
                segments.append(start, records)
                bar.update(len(records))
        store.switch(segments, rows)
        return before - store.disk


def copy(folder: Path, target: Path, *, progress: bool) -> None:
    """See :meth:`TokenIndex.copy`."""
    if target.exists():
        raise InputError(f"{target} exists already: choose a new folder for the copy")
    with writing(target, 0), held_still(folder), replacing(target) as draft:
        store = open_complete(folder)
        check_room(_size(store, len(_live_rows(store))), target)
        there = LocalStore.create(draft, replace(store.manifest, complete=False))
        with progress_bar(len(store), "copy", "documents", enabled=progress) as bar:
            for keys, entries in store.scan(store.window(WINDOW)):
                there.append(store.packed(keys, entries))
                bar.update(len(keys))
        there.finish()


def _live_rows(store: LocalStore) -> NDArray[np.int64]:
    """Rows of all documents' records, int64 [n], ascending."""
    rows = [rows_of(entries["row"], store.counts(entries)) for _, entries in store.scan(1 << 16)]
    return np.sort(np.concatenate(rows)) if rows else np.empty(0, dtype=np.int64)


def _size(store: LocalStore, records: int) -> int:
    return records * (store.quantiser.record_bytes + DOCID_MAP_BYTES)
