"""A complete index, opened by its one writer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from ..types import Model
from .environment import DRAFT
from .local import LocalStore, check_there
from .lock import writer_lock

__all__ = ["open_complete", "open_to_write", "refuse_strangers"]


@contextmanager
def open_to_write(folder: Path, model: Model | None = None) -> Iterator[LocalStore]:
    """The store, locked, and freed of what a killed compaction has left.

    Raises InputError if it is half built or another process holds it, IndexMismatch if ``model`` did not build it.
    """
    check_there(folder)
    with writer_lock(folder):
        store = open_complete(folder)
        if model is not None:
            store.manifest.check_model(model, folder)
        store.sweep()
        yield store


def open_complete(folder: Path) -> LocalStore:
    """Raises InputError if it is half built."""
    store = LocalStore(folder)
    if not store.manifest.complete:
        raise InputError(f"{folder} is half built ({len(store)} documents): finish it with the command that began it")
    return store


def refuse_strangers(folder: Path) -> None:
    """Raises InputError if a new index is to be made where other files lie."""
    strangers = [path.name for path in folder.glob("*") if path.name not in ("writer.lock", DRAFT)]
    if strangers:
        raise InputError(f"{folder} is not empty and not a token index (it holds {strangers[0]!r}): choose another")
