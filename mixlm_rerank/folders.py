"""Folders whose contents change atomically: a process killed at any moment leaves the old contents or the new."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

__all__ = ["locked", "replacing", "settle"]

DRAFT, WHOLE = ".saving", ".saved"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A draft folder to fill, which then becomes ``folder``.

    If ``folder`` exists already, the draft's entries replace those with the same names and all others stay. Readers of
    the folder call :func:`settle` first. If the block raises, nothing has changed.
    """
    exists = folder.is_dir()  # perhaps a mount point, whose parent is another file system
    draft = folder / DRAFT if exists else folder.with_name(f".{folder.name}{DRAFT}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        if exists:
            with locked(folder):
                _settle(folder)
                draft.rename(folder / WHOLE)  # from here on the new contents count
                _settle(folder)
        else:
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def settle(folder: Path) -> None:
    """Finish a replacement that was killed halfway. Raises InputError if it cannot be done."""
    if (folder / WHOLE).is_dir():
        try:
            with locked(folder):
                _settle(folder)
        except OSError as error:
            raise InputError(
                f"{folder} was being replaced when the process was killed, and that cannot be finished from here "
                f"({error}): load it once as a user who may write to it"
            ) from None


def _settle(folder: Path) -> None:
    whole = folder / WHOLE
    if not whole.is_dir():
        return
    for new in list(whole.iterdir()):
        old = folder / new.name
        if old.is_dir():
            shutil.rmtree(old)
        new.replace(old)
    whole.rmdir()


@contextmanager
def locked(folder: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Lock a folder for one process, or for several readers (LOCK_SH): a second writer would take new contents for old.

    Raises FileNotFoundError if the folder is gone.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)
