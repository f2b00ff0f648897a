"""One writer at a time: a lock file that says who holds it and since when."""

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

from ..errors import InputError

__all__ = ["held_still", "writer_lock"]


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the index in ``folder`` for writing. Released when the process ends, however it ends.

    Raises InputError if another process holds it, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / "data.mdb", folder / "lock.mdb", *folder.glob("tokens-*.bin")):
            if path.exists() and not os.access(path, os.W_OK):  # better now than after the work
                raise InputError(f"cannot write to {folder}: this user may not write to its file {path.name}")
        file = (folder / "writer.lock").open("a+")
    except OSError as error:
        raise InputError(f"cannot write a token index to {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _in_use(folder, file) from None
        holder = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        file.truncate(0)
        file.write(json.dumps(holder))
        file.flush()
        yield
        file.truncate(0)


@contextmanager
def held_still(folder: Path) -> Iterator[None]:
    """Keep writers out while a whole index is read; others may read it so, too.

    An index without a lock file that this process cannot write to is taken for one that nobody writes.

    Raises InputError if another process writes it.
    """
    path = folder / "writer.lock"
    if not path.exists() and not all(os.access(own, os.W_OK) for own in (folder, folder / "data.mdb")):
        yield
        return
    with path.open("r" if path.exists() else "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            raise _in_use(folder, file) from None
        yield


def _in_use(folder: Path, file: TextIO) -> InputError:
    file.seek(0)
    writer = file.read()
    how = f"written by another process: {writer}" if writer else "read whole by another process: wait for it"
    return InputError(f"{folder} is being {how}")
