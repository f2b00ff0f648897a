"""LMDB environments, safe across threads and forks (LMDB forbids opening one twice in a process, or forking it)."""

from __future__ import annotations

import fcntl
import os
import resource
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import lmdb

from ..errors import IndexDamaged, InputError
from ..folders import locked

__all__ = ["DRAFT", "Environment", "Stored", "create_environment", "writing"]

# Upper bounds of address space, not of disk or memory. The second one is for processes whose address space is limited
# (ulimit -v): room for three million documents, or four times the present file if that is more.
MAP_SIZE, LEAST_MAP_SIZE = 1 << 38, 1 << 28
DRAFT = "draft.mdb"

Stored = bytes | memoryview  # LMDB's keys and values
Pairs = Iterable[tuple[Stored, Stored]]

_guard = threading.RLock()  # held while an environment is opened, used or closed, and during a fork
_open: dict[tuple[int, int], _Handle] = {}


class Environment:
    """The docid map of one index: ``meta`` (manifest, committed rows) and ``docs`` (docid -> entry).

    Any number of instances may share a folder, in any thread; they use one LMDB handle. A forked child opens its own.
    Raises IndexDamaged if there is no such map in ``folder``.
    """

    def __init__(self, folder: Path) -> None:
        with _guard:
            self._handle = _open.get(_identity(folder)) or _Handle(folder)
            self._handle.users += 1
            weakref.finalize(self, _released, self._handle)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[lmdb.Transaction]:
        """Keep it short: an open transaction makes the file grow, and the other threads of this process wait for it."""
        with _guard:
            try:
                with self._handle.begin(write) as transaction:
                    yield transaction
            except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError) as error:
                raise IndexDamaged(f"the docid map in {self._handle.folder} is damaged: {error}; rebuild") from None

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key`` in ``meta``; None if there is none."""
        with self.transaction() as transaction:
            value = transaction.get(key, db=self.meta)
        return None if value is None else bytes(value)

    def number(self, key: bytes) -> int:
        """The value of ``key`` in ``meta`` as a number; 0 if there is none. Raises IndexDamaged if it is no number."""
        value = self.get(key) or b"0"
        if not value.isdigit():
            raise IndexDamaged(
                f"the docid map is damaged: {key.decode()} is {value!r}; restore it, or rebuild the index"
            )
        return int(value)

    @property
    def moved(self) -> bool:
        """Whether another map has taken this one's place: the folder was deleted, and built anew."""
        try:
            return _identity(self._handle.folder) != self._handle.identity
        except FileNotFoundError:
            return False

    def rewrite(self, manifest: bytes) -> None:
        """Replace this map by a new one with another ``manifest``; all other contents stay.

        The pages of an LMDB file, and of its compact copies, depend on the order of insertion. The new map is filled in
        key order, so its bytes depend only on its contents. A crash leaves the old map or the new one. Other processes
        that have the old map open would keep it, so do not call this for an index that is already being read.
        """
        with _guard:
            with self.transaction() as old:
                meta = dict(old.cursor(self.meta)) | {b"manifest": manifest}
                draft = _draft(self._handle.folder, meta, old.cursor(self.docs))
            self._handle.replace(draft)

    @property
    def meta(self) -> lmdb._Database:
        return self._handle.meta

    @property
    def docs(self) -> lmdb._Database:
        return self._handle.docs


def _released(handle: _Handle) -> None:
    """Release the handle of an :class:`Environment` that was deleted; the last one closes it."""
    with _guard:
        handle.users -= 1
        if not handle.users:
            handle.close()
            _open.pop(handle.identity, None)


class _Handle:
    """An LMDB environment, identified by its file, not by its path: a folder may be deleted and built anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.users = 0
        self.env: lmdb.Environment | None = None
        self.identity = _identity(folder)
        self.open()
        _open[self.identity] = self

    def open(self) -> lmdb.Environment:
        """Open the environment unless it is open already."""
        if self.env is not None:
            return self.env
        data, locks = self.folder / "data.mdb", self.folder / "lock.mdb"
        # Folder and files must all be writable: a lock file that we make would keep out the owner of the map
        writable = os.access(self.folder, os.W_OK) and os.access(data, os.W_OK)
        writable = writable and (os.access(locks, os.W_OK) or not locks.exists())
        options = {"readonly": not writable, "lock": writable or os.access(locks, os.W_OK)}
        try:
            with locked(self.folder, fcntl.LOCK_SH):
                if _identity(self.folder) != self.identity:
                    raise FileNotFoundError
                env = lmdb.open(str(self.folder), map_size=_map_size(data), max_dbs=4, **options)
                self.meta = env.open_db(b"meta", create=False)
                self.docs = env.open_db(b"docs", create=False)
                env.reader_check()  # forget readers that died
        except FileNotFoundError:
            raise IndexDamaged(f"{self.folder} was deleted or replaced after it was opened: open it anew") from None
        except lmdb.MemoryError:
            raise InputError(
                f"no address space for the docid map in {self.folder}: raise its limit (ulimit -v)"
            ) from None
        except lmdb.NotFoundError:
            raise IndexDamaged(f"{self.folder} is not a token index: data.mdb holds something else") from None
        except lmdb.Error as error:
            raise IndexDamaged(f"the docid map in {self.folder} cannot be opened: {error}") from None
        self.env = env
        return env

    def begin(self, write: bool) -> lmdb.Transaction:
        try:
            return self.open().begin(write=write)
        except lmdb.MapResizedError:  # another process has let the file grow beyond our mapping
            self.close()
            return self.open().begin(write=write)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None

    def replace(self, draft: Path) -> None:
        """Replace this map by ``draft``, for all its users in this process."""
        self.close()
        _put(draft, self.folder)
        _open.pop(self.identity)
        self.identity = _identity(self.folder)
        _open[self.identity] = self


@contextmanager
def writing(folder: Path, safe: int) -> Iterator[None]:
    """Turn a failed write into an InputError that says how many documents are ``safe``."""
    try:
        yield
    except (OSError, lmdb.Error) as error:
        cramped = isinstance(error, lmdb.MapFullError | lmdb.MemoryError)
        why = "address space limited (ulimit -v)?" if cramped else "disk full?"
        raise InputError(
            f"cannot write to {folder} ({error}): {why} {safe} documents are safe in it; make room and "
            "run the same command again to go on"
        ) from None


def create_environment(folder: Path, manifest: bytes) -> None:
    """Make the docid map of a new index. After a crash it exists with its manifest or not at all."""
    _put(_draft(folder, {b"manifest": manifest}, []), folder)


def _draft(folder: Path, meta: Mapping[Stored, Stored], docs: Pairs) -> Path:
    """Write a map of these entries to a draft file and return its path. ``docs`` must be in key order."""
    draft = folder / DRAFT
    draft.unlink(missing_ok=True)
    with lmdb.open(str(draft), subdir=False, lock=False, map_size=_map_size(folder / "data.mdb"), max_dbs=4) as env:
        with env.begin(write=True) as transaction:
            for name, pairs in ((b"docs", docs), (b"meta", sorted(meta.items()))):
                with transaction.cursor(env.open_db(name, transaction)) as cursor:
                    cursor.putmulti(pairs, append=True)
    return draft


def _put(draft: Path, folder: Path) -> None:
    """Make a draft the map of ``folder``. Nobody can open it meanwhile: LMDB's two files must be of the same map."""
    with locked(folder):
        # The lock file counts the transactions of the old map. Processes that have both open keep both.
        (folder / "lock.mdb").unlink(missing_ok=True)
        draft.replace(folder / "data.mdb")


def _map_size(data: Path) -> int:
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return MAP_SIZE
    return max(LEAST_MAP_SIZE, 4 * data.stat().st_size if data.exists() else 0)


def _identity(folder: Path) -> tuple[int, int]:
    status = (folder / "data.mdb").stat()
    return status.st_dev, status.st_ino


def _after_fork_in_child() -> None:
    for handle in _open.values():
        handle.close()
    _guard.release()


# Closing an environment that another thread was using at the fork would hang the child: hence the guard.
os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork_in_child)
