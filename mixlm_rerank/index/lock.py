"""One writer at a time: a lock file with its holder and start time; and opening a complete index under that lock."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from ..errors import IndexDamaged, InputError
from ..types import Model
from .environment import DRAFT
from .local import LocalStore, check_there

__all__ = ["held_still", "open_complete", "open_to_write", "refuse_strangers", "writer_lock"]


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the index in ``folder`` for writing. Released when the process ends, however it ends.

    Raises InputError if another process holds it, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / "data.mdb", folder / "lock.mdb", *folder.glob("tokens-*.bin")):
            if path.exists() and not os.access(path, os.W_OK):  # fail before the work, not after it
                raise InputError(f"cannot write to {folder}: this user may not write to its file {path.name}")
        file = (folder / "writer.lock").open("a+")
    except OSError as error:
        raise InputError(f"cannot write a token index to {folder}: {error.strerror}") from None
    with file:
        _take(file, fcntl.LOCK_EX, folder)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        file.truncate(0)
        file.write(json.dumps(holder))
        file.flush()
        yield
        file.truncate(0)


@contextmanager
def held_still(folder: Path) -> Iterator[None]:
    """Keep writers out while a whole index is read. Other processes may hold this shared lock too.

    If there is no lock file and this process cannot write to the index, assume that nobody writes to it.

    Raises InputError if there is no index, or another process is writing it.
    """
    check_there(folder)
    path = folder / "writer.lock"
    if not path.exists() and not all(os.access(own, os.W_OK) for own in (folder, folder / "data.mdb")):
        yield
        return
    with path.open("r" if path.exists() else "a+") as file:
        _take(file, fcntl.LOCK_SH, folder)
        yield


@contextmanager
def open_to_write(folder: Path, model: Model | None = None) -> Iterator[LocalStore]:
    """Open a complete store under the writer lock, and delete what a killed compaction left behind.

    Raises InputError if another process holds the lock, IndexMismatch if ``model`` did not build it.
    """
    check_there(folder)
    with writer_lock(folder):
        store = open_complete(folder)
        if model is not None:
            store.manifest.check_model(model, folder)
        store.segments.sweep()
        yield store


def open_complete(folder: Path) -> LocalStore:
    """Raises InputError without an index, IndexDamaged if it is half built, damaged, or of another format version."""
    store = LocalStore(folder)
    manifest = store.manifest
    if not manifest.complete:
        raise IndexDamaged(
            f"{store.folder} is half built ({len(store)} documents). Finish it with the command that began it: "
            f"mixlm-rerank index import, or index build {manifest.corpus} {store.folder} --model {manifest.model} "
            f"{manifest.build_options}"
        )
    return store


def refuse_strangers(folder: Path) -> None:
    """Raises InputError if the folder for a new index holds other files."""
    strangers = [path.name for path in folder.glob("*") if path.name not in ("writer.lock", DRAFT)]
    if strangers:
        raise InputError(f"{folder} is not empty and not a token index (it holds {strangers[0]!r}): choose another")


def _take(file: TextIO, kind: int, folder: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        writer = file.read()
        how = f"written by another process: {writer}" if writer else "read whole by another process: wait for it"
        raise InputError(f"{folder} is being {how}") from None
