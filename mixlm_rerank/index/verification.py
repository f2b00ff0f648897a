"""Is every document what was written? Checksums of all, and a way to go on without those that are damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..progress import progress_bar
from .entries import checksums, docid_of
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
            for keys, entries in store.scan(WINDOW):
                bad.update(_damaged(store, keys, entries))
                bar.update(len(keys))
        found = Verification(len(store), {docid_of(key): why for key, why in bad.items()})
        if drop:
            store.drop(list(bad))
        return found


def _damaged(store: LocalStore, keys: list[bytes], entries: NDArray[np.void]) -> dict[bytes, str]:
    here = store.readable(entries["row"]) & (entries["row"] < store.rows)
    found = {keys[place]: "its record is gone" for place in np.flatnonzero(~here)}
    places = np.flatnonzero(here)
    contents = [content.tobytes() for content in entries["content"][places]]
    sums = checksums([keys[place] for place in places], contents, store.records(entries["row"][places]))
    wrong = places[sums != entries["crc"][places]]
    return found | {keys[place]: "its checksum is another" for place in wrong}
