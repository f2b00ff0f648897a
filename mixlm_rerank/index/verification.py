"""Is every document what was written? Checksums of all, and a way to go on without those that are damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..progress import progress_bar
from .entries import docid_of, rows_of
from .local import LocalStore, check_there
from .lock import held_still, writer_lock

__all__ = ["Verification", "verify"]

WINDOW = 4096


@dataclass(frozen=True)
class Verification:
    """Attributes:
    documents: how many were looked at.
    damaged: docid -> what is wrong, for each that is not what was written.
    """

    documents: int
    damaged: dict[str, str]


def verify(folder: Path, *, drop: bool, progress: bool) -> Verification:
    """See :meth:`TokenIndex.verify`."""
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


def _damaged(store: LocalStore, keys: list[bytes], entries: NDArray[np.void]) -> dict[bytes, str]:
    counts = store.counts(entries)
    here = (counts > 0) & (entries["row"] + counts <= store.rows)
    readable = store.readable(rows_of(entries["row"][here], counts[here]))
    here[np.repeat(np.flatnonzero(here), counts[here])[~readable]] = False
    found = {keys[place]: "its record is gone" for place in np.flatnonzero(~here)}
    places = np.flatnonzero(here)
    documents = store.packed([keys[place] for place in places], entries[places])
    wrong = places[documents.checksums() != entries["crc"][places]]
    return found | {keys[place]: "its checksum is another" for place in wrong}
