"""LMDB environments, one a folder and process: LMDB forbids opening the same one twice in a process."""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from ..errors import IndexDamaged

__all__ = ["Environment"]

MAP_SIZE = 1 << 38  # an upper bound of address space, not of disk or memory
MAX_KEY_BYTES = 511

_open: WeakValueDictionary[tuple[int, str], Environment] = WeakValueDictionary()


class Environment:
    """The docid map of one index: ``meta`` (manifest, committed rows) and ``docs`` (docid -> entry)."""

    def __init__(self, folder: Path) -> None:
        writable = os.access(folder, os.W_OK)
        try:
            self.env = lmdb.open(
                str(folder), map_size=MAP_SIZE, max_dbs=4, readonly=not writable, lock=writable, create=True
            )
            self.env.reader_check()  # forget readers that died
            self.meta = self.env.open_db(b"meta", create=writable)
            self.docs = self.env.open_db(b"docs", create=writable)
        except lmdb.Error as error:
            raise IndexDamaged(f"the docid map in {folder} cannot be opened: {error}") from None

    @classmethod
    def shared(cls, folder: Path) -> Environment:
        """The environment of ``folder`` in this process (a forked child opens its own)."""
        key = (os.getpid(), str(folder.resolve()))
        environment = _open.get(key)
        if environment is None:
            environment = _open[key] = cls(folder)
        return environment

    def __del__(self) -> None:
        if hasattr(self, "env"):
            self.env.close()
