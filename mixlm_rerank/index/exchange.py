"""An index to Parquet shards and back: for other tools, other machines, and for what many workers have encoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import IndexDamaged, InputError
from ..progress import progress_bar
from .builder import first_known
from .entries import MAX_KEY_BYTES, Packed, docid_of
from .local import LocalStore
from .lock import held_still, open_complete, refuse_strangers, writer_lock
from .manifest import Manifest
from .plan import DOCID_MAP_BYTES, check_room
from .shards import CATALOGUE, Shards

__all__ = ["WINDOW", "export_index", "fill", "import_begun", "import_index"]

SHARD_BYTES = 1 << 28
OWN = re.compile(r"part-\d{6}\.parquet(\.\w+\.part)?|index\.json(\.\w+\.part)?")
WINDOW = 16384  # records a commit of an import, about


def export_index(folder: Path, url: str, *, progress: bool) -> None:
    """See :meth:`TokenIndex.export`."""
    shards = Shards(url)
    if shards.holds(CATALOGUE):
        raise InputError(f"{url} holds an exported index already: choose another place")
    shards.prepare(OWN)
    with held_still(folder):
        store = open_complete(folder)
        names: list[str] = []
        with progress_bar(len(store), "export", "documents", enabled=progress) as bar:
            for keys, entries in store.scan(store.window(SHARD_BYTES // store.quantiser.record_bytes)):
                names.append(f"part-{len(names):06d}.parquet")
                shards.write(names[-1], store.packed(keys, entries), store.manifest)
                bar.update(len(keys))
        shards.clear(OWN, kept=names)  # of an export that was killed
        shards.finish(store.manifest, names, len(store))


def import_index(url: str, folder: Path, *, progress: bool) -> None:
    """See :meth:`TokenIndex.import_from`."""
    shards = Shards(url)
    manifest, names, documents = shards.catalogue()
    window = max(1, WINDOW // 16) if manifest.passages else WINDOW
    parts = ((f"{url}/{name}", part) for name in names for part in shards.read(name, manifest, window))
    fill(folder, replace(manifest, complete=False), documents, parts, url, progress=progress)


def fill(
    folder: Path, manifest: Manifest, documents: int, parts: Iterable[tuple[str, Packed]], url: str, *, progress: bool
) -> None:
    """Make an index out of so many documents, or go on where an interruption left it.

    ``parts``: some documents and, for messages, where they are from. ``url``: where all are from.
    """
    import_begun(folder, manifest, documents)  # refuse before anything is written
    with writer_lock(folder):
        store = import_begun(folder, manifest, documents) or LocalStore.create(folder, manifest)
        done, row = store.rows, 0
        with progress_bar(documents, "import", "documents", enabled=progress, initial=len(store)) as bar:
            for where, read in parts:
                committed = int(np.searchsorted(row + read.entries["row"], done))
                _check_committed(store, read, committed, row, url)
                row += len(read.records)
                if committed < len(read):
                    _refuse_known(store, read.keys[committed:], where)
                    store.append(read.since(committed))
                    bar.update(len(read) - committed)
        if len(store) != documents:
            raise IndexDamaged(f"{url} holds {len(store)} documents, its {CATALOGUE} says {documents}: export it again")
        store.finish()


def import_begun(folder: Path, exported: Manifest, documents: int) -> LocalStore | None:
    """The store of an interrupted import; ``None`` where one starts anew."""
    if not (folder / "data.mdb").exists():
        refuse_strangers(folder)
        check_room(documents * (exported.quantiser.record_bytes + DOCID_MAP_BYTES), folder)
        return None
    store = LocalStore(folder)
    if store.manifest != exported:
        raise InputError(f"{folder} is a token index already, and not of this import: choose another folder")
    return store


def _check_committed(store: LocalStore, read: Packed, committed: int, first_row: int, url: str) -> None:
    entries, expected = store.entries([docid_of(key) for key in read.keys[:committed]]), read.entries[:committed]
    if (entries["row"] != first_row + expected["row"]).any() or (entries["content"] != expected["content"]).any():
        raise InputError(f"{url} has changed since its import into {store.folder} was interrupted: delete the folder")


def _refuse_known(store: LocalStore, keys: Sequence[bytes], where: str) -> None:
    size = next((len(key) for key in keys if not 0 < len(key) <= MAX_KEY_BYTES), None)
    if size is not None:
        raise InputError(f"{where} holds a docid of {size} bytes (1 to {MAX_KEY_BYTES} are possible)")
    twice = first_known([docid_of(key) for key in keys], store)
    if twice is not None:
        raise InputError(f"{where} holds {twice!r}, which came before: a docid may stand in one place only")
