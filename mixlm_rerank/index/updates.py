"""Change an index in place: add, replace, delete, sync. Updates commit in parts and resume when run again.

After any of these, every document has the same tokens, bit for bit, as in a fresh build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..arguments import check_list_of_strings
from ..errors import InputError
from ..progress import progress_bar
from ..types import Document, Model
from .encoding import Encoder
from .local import LocalStore
from .lock import held_still, open_complete, open_to_write
from .manifest import docid_of, key_of
from .opened import OpenedIndex
from .plan import DOCID_MAP_BYTES, check_room, checked, is_stream

__all__ = ["Changes", "UpdatableIndex"]

WINDOW = 2048


@dataclass(frozen=True)
class Changes:
    """Numbers of documents that an update wrote (``new`` or ``changed`` texts), left ``unchanged`` and ``deleted``."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in vars(self).items())


class UpdatableIndex(OpenedIndex):
    """The methods of :class:`TokenIndex` that change an index in place."""

    def add(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Encode and write new documents. Documents that are in the index with the same text are skipped.

        Like all updates it commits in windows: after an interruption the same call resumes.

        Raises:
            InputError: a docid is in the index with another text; duplicate docid, empty text, disk full, folder in
                use.
            IndexMismatch: another item encoder built the index.
        """
        with open_to_write(self.path, model) as store:
            return _Update(store, documents, skip_empty, only_new=True).run(model, "add", progress)

    def replace(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Add or overwrite documents. Documents whose text has not changed are skipped.

        Raises the errors of ``add``, except for texts that differ.
        """
        with open_to_write(self.path, model) as store:
            return _Update(store, documents, skip_empty).run(model, "replace", progress)

    def delete(self, docids: Sequence[str]) -> Changes:
        """Delete documents in one step. ``compact`` frees their space.

        Raises InputError, and deletes nothing, if a docid is not in the index.
        """
        with open_to_write(self.path) as store:
            check_list_of_strings("docids", docids)
            wanted = list(dict.fromkeys(docids))
            absent = [docid for docid, row in zip(wanted, store.entries(wanted)["row"], strict=True) if row < 0]
            if absent:
                raise InputError(
                    f"{self.path} does not hold {absent[0]!r} ({len(absent)} of {len(wanted)}): nothing deleted"
                )
            store.remove([key_of(docid) for docid in wanted])
            return Changes(unchanged=len(store), deleted=len(wanted))

    def sync(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Bring the index up to date with a corpus: encode what is new or changed, delete what is gone.

        ``compare`` shows first what would change. Raises the errors of ``replace``; InputError for an empty corpus.
        """
        with open_to_write(self.path, model) as store:
            update = _Update(store, documents, skip_empty)
            written = update.run(model, "sync", progress)
            if written == Changes():
                raise InputError("the corpus holds no documents: to empty an index, delete its folder")
            gone = update.unseen()
            if gone:
                store.remove(gone)
            return Changes(written.new, written.changed, written.unchanged, len(gone))

    def compare(self, documents: Iterable[Document], *, skip_empty: bool = False) -> Changes:
        """Show what ``sync`` would do. Encodes and writes nothing."""
        store = open_complete(self.path)
        with held_still(self.path):
            update = _Update(store, documents, skip_empty)
            found = update.survey()
            return Changes(found.new, found.changed, found.unchanged, len(update.unseen()))


@dataclass
class _Update:
    """One pass over the documents that an update is to put into the index."""

    store: LocalStore
    documents: Iterable[Document]
    skip_empty: bool
    only_new: bool = False
    model: Model | None = None  # None while only comparing

    def __post_init__(self) -> None:
        if self.store.manifest.of_vectors:
            raise InputError(
                f"{self.store.folder} holds vectors of your own, and texts cannot be encoded for it: import all "
                "vectors into a new index (mixlm-rerank index import)"
            )

    def run(self, model: Model, task: str, progress: bool) -> Changes:
        """Encode and write the documents that are new or changed."""
        self.model, total = model, None
        if not is_stream(self.documents):  # refuse before the long work
            found = self.survey()
            total = found.new + found.changed
            check_room(total * (self.store.quantiser.record_bytes + DOCID_MAP_BYTES), self.store.folder)
        encoder = Encoder(model, self.store.manifest)
        with progress_bar(total, task, "documents", enabled=progress) as bar:

            def write(documents: list[Document]) -> None:
                for part in encoder.parts(documents, bar):
                    self.store.append(part)

            return self._over_all(write)

    def survey(self) -> Changes:
        """Count what :meth:`run` would write, without writing. Raises InputError where :meth:`run` would."""
        return self._over_all(lambda documents: None)

    def _over_all(self, write: Callable[[list[Document]], object]) -> Changes:
        """Pass the documents that are new or changed to ``write``, a window at a time."""
        self.first = self.store.rows  # rows from here on are written by this update
        self.seen = np.zeros(self.first, dtype=bool)  # rows of documents met in this pass
        self.fresh: set[bytes] = set()  # docids met in this pass that had no row
        new = changed = unchanged = 0
        stream = checked(self.documents, self.model, skip_empty=self.skip_empty)
        while window := list(islice(stream, WINDOW)):
            lacking, outdated = self._sorted_out(window)
            write([*lacking, *outdated])
            new, changed = new + len(lacking), changed + len(outdated)
            unchanged += len(window) - len(lacking) - len(outdated)
        return Changes(new, changed, unchanged)

    def unseen(self) -> list[bytes]:
        """Keys of the documents that were in the index before this pass and did not occur in it."""
        gone: list[bytes] = []
        if not self.first:
            return gone
        for keys, entries in self.store.scan(WINDOW):
            rows = entries["row"]
            absent = (rows < self.first) & ~self.seen[np.minimum(rows, self.first - 1)]
            gone.extend(keys[place] for place in np.flatnonzero(absent))
        return gone

    def _sorted_out(self, window: list[Document]) -> tuple[list[Document], list[Document]]:
        """Split a window into documents that the index lacks and documents that it holds with another text."""
        entries = self.store.entries([document.docid for document in window])
        lacking, outdated = [], []
        for document, entry in zip(window, entries, strict=True):
            row, key = int(entry["row"]), key_of(document.docid)
            if row >= self.first or key in self.fresh or (row >= 0 and self.seen[row]):
                raise InputError(
                    f"duplicate docid {document.docid!r} in the documents; what was written before is safe"
                )
            if row < 0:
                self.fresh.add(key)
                lacking.append(document)
                continue
            self.seen[row] = True
            if entry["content"].tobytes() != self.store.manifest.content_hash(document):
                if self.only_new:
                    raise InputError(
                        f"{self.store.folder} holds {docid_of(key)!r} already, with another text: use replace"
                    )
                outdated.append(document)
        return lacking, outdated
