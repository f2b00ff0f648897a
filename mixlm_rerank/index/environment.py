"""LMDB environments, safe across threads and forks (LMDB forbids to open one twice in a process, or to fork it)."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from ..errors import IndexDamaged

__all__ = ["Environment", "create_environment"]

MAP_SIZE = 1 << 38  # an upper bound of address space, not of disk or memory
MAX_KEY_BYTES = 511
DRAFT = "begin"

_guard = threading.RLock()  # held while an environment is opened, used or closed, and over a fork
_open: dict[tuple[int, int], _Handle] = {}


class Environment:
    """The docid map of one index: ``meta`` (manifest, committed rows) and ``docs`` (docid -> entry).

    A folder may have any number of these, in any thread; all share one LMDB handle. A forked child opens its own.
    Raises IndexDamaged if there is no such map in ``folder``.
    """

    def __init__(self, folder: Path) -> None:
        with _guard:
            self._handle = _open.get(_identity(folder)) or _Handle(folder)
            self._handle.users += 1

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[lmdb.Transaction]:
        """Keep it short: a transaction held makes the file grow, and others of this process wait."""
        with _guard:
            with self._handle.open().begin(write=write) as transaction:
                yield transaction

    def completed(self, manifest: bytes) -> Environment:
        """A compact copy of this map with its last manifest takes its place; this object is not to be used any more.

        How a tree of pages lies in its file depends on interruptions; its compact copy depends on what it holds alone.
        A crash leaves the map as it was, or the copy.
        """
        with _guard:
            folder = self._handle.folder
            draft = folder / DRAFT
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            self._handle.open().copy(str(draft), compact=True)
            with lmdb.open(str(draft), map_size=MAP_SIZE, max_dbs=4) as env, env.begin(write=True) as transaction:
                transaction.put(b"manifest", manifest, db=env.open_db(b"meta", transaction))
            self._handle.close()
            (draft / "data.mdb").replace(folder / "data.mdb")
            (folder / "lock.mdb").unlink(missing_ok=True)  # it knows of the transactions of the other file
            shutil.rmtree(draft)
            return Environment(folder)

    @property
    def meta(self) -> lmdb._Database:
        return self._handle.meta

    @property
    def docs(self) -> lmdb._Database:
        return self._handle.docs

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            with _guard:
                self._handle.users -= 1
                if not self._handle.users:
                    self._handle.close()
                    _open.pop(self._handle.identity, None)


class _Handle:
    """An open LMDB environment. Known by its file, not by its name: a folder may be deleted and built anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.users = 0
        self.env: lmdb.Environment | None = None
        self.identity = _identity(folder)
        self.open()
        _open[self.identity] = self

    def open(self) -> lmdb.Environment:
        """Open it, unless it is."""
        if self.env is not None:
            return self.env
        if not (self.folder / "data.mdb").exists() or _identity(self.folder) != self.identity:
            raise IndexDamaged(f"{self.folder} was deleted or replaced after it was opened: open it anew")
        writable = os.access(self.folder, os.W_OK)
        try:
            env = lmdb.open(str(self.folder), map_size=MAP_SIZE, max_dbs=4, readonly=not writable, lock=writable)
            self.meta = env.open_db(b"meta", create=False)
            self.docs = env.open_db(b"docs", create=False)
            env.reader_check()  # forget readers that died
        except lmdb.NotFoundError:
            raise IndexDamaged(f"{self.folder} is not a token index: data.mdb holds something else") from None
        except lmdb.Error as error:
            raise IndexDamaged(f"the docid map in {self.folder} cannot be opened: {error}") from None
        self.env = env
        return env

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None


def create_environment(folder: Path, manifest: bytes) -> None:
    """Make the docid map of a new index. It appears with its manifest or, after a crash, not at all."""
    draft = folder / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    with lmdb.open(str(draft), max_dbs=4) as env, env.begin(write=True) as transaction:
        env.open_db(b"docs", transaction)
        transaction.put(b"manifest", manifest, db=env.open_db(b"meta", transaction))
    (draft / "data.mdb").rename(folder / "data.mdb")
    shutil.rmtree(draft)


def _identity(folder: Path) -> tuple[int, int]:
    status = (folder / "data.mdb").stat()
    return status.st_dev, status.st_ino


def _after_fork_in_child() -> None:
    for handle in _open.values():
        handle.close()
    _guard.release()


# Closing an environment that another thread was using at the fork would hang the child: hence the guard.
os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork_in_child)
