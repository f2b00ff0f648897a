"""Build a token index from a corpus: bounded memory, committed in parts, resumable to the same bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from ..arguments import check_model
from ..errors import InputError
from ..progress import progress_bar
from ..types import Document, Model
from .encoding import Encoder
from .local import LocalStore
from .lock import writer_lock
from .manifest import Manifest
from .plan import check_room, checked, is_stream, plan_build
from .quantiser import Quantiser
from .segments import Segments
from .writer import refuse_strangers

__all__ = ["build", "new_manifest", "plan_ahead"]

WINDOW = 2048  # documents that are looked up at once


def build(
    documents: Iterable[Document],
    model: Model,
    folder: Path,
    *,
    precision: str,
    corpus: str,
    skip_empty: bool,
    passages: bool,
    progress: bool,
) -> None:
    """See :meth:`TokenIndex.build`."""
    manifest = new_manifest(model, precision, corpus, passages=passages)
    begun = _begun(folder, model, manifest)  # refuse before the long work
    encoder = Encoder(model, manifest if begun is None else begun.manifest)  # its format may be an older one
    total = plan_ahead(documents, encoder, folder, skip_empty=skip_empty, progress=progress)
    with writer_lock(folder):
        store = _begun(folder, model, manifest)
        stream = checked(documents, model, skip_empty=skip_empty)
        done = 0 if store is None else _skip_committed(stream, store)
        with progress_bar(total, "index", "documents", enabled=progress, initial=done) as bar:
            for window in _windows(stream):
                _refuse_duplicates(window, store)
                for part in encoder.parts(window, bar):
                    if store is None:  # not before there is something to keep
                        store = LocalStore.create(folder, manifest)
                    store.append(part)
        if store is None:
            raise InputError("the corpus holds no documents")
        if total not in (None, len(store)):
            raise InputError(
                f"the corpus had {total} documents at first and {len(store)} now: it changed under the build"
            )
        store.finish()


def plan_ahead(
    documents: Iterable[Document], encoder: Encoder, folder: Path, *, skip_empty: bool, progress: bool
) -> int | None:
    """Look at the corpus before the long work, and say what it will take. Returns how many documents there are.

    ``None`` for a one-way stream, which is taken as it comes. Raises InputError for what cannot be indexed, or no room.
    """
    if is_stream(documents):
        return None
    plan = plan_build(documents, encoder, skip_empty=skip_empty)
    check_room(plan.bytes - _held(folder), folder)
    if progress:
        tqdm.write(f"{folder}: {plan}", file=sys.stderr)
    return plan.documents


def new_manifest(model: Model, precision: str, corpus: str, *, passages: bool = False) -> Manifest:
    """Of an index that is yet to be filled. Raises InputError for an unknown precision."""
    check_model(model)
    shape = model.config.tokens, model.item_encoder.token_size
    quantiser = Quantiser(precision, *shape, title_tokens=model.config.title_tokens)
    return Manifest(
        fingerprint=model.fingerprint,
        model=model.name,
        tokens=quantiser.tokens,
        dim=quantiser.dim,
        precision=precision,
        corpus=corpus,
        rows_per_segment=Segments.rows_per_segment(quantiser.record_bytes),
        passages=passages,
        text_tokens=model.item_encoder.text_tokens,
        title_tokens=quantiser.title_tokens,
    )


def _held(folder: Path) -> int:
    """Bytes that an interrupted build has written already."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*") if path.is_file())


def _begun(folder: Path, model: Model, manifest: Manifest) -> LocalStore | None:
    """The store of an interrupted build that has committed documents; ``None`` where a build starts anew.

    Raises InputError, IndexMismatch for any other folder.
    """
    if not (folder / "data.mdb").exists():
        refuse_strangers(folder)
        return None
    store = LocalStore(folder)
    if store.manifest.complete:
        raise InputError(
            f"{folder} is a complete token index already: delete it first, or choose another (TokenIndex opens it)"
        )
    if not store.rows:
        return None
    store.manifest.check_model(model, folder)
    if store.manifest.build_options != manifest.build_options:
        raise InputError(f"{folder} was begun with {store.manifest.build_options}, not {manifest.build_options}")
    return store


def _skip_committed(stream: Iterator[Document], store: LocalStore) -> int:
    """Pass over what an interrupted build has committed, making sure that it is still the same corpus."""
    row = number = 0
    while row < store.rows:
        document, number = next(stream, None), number + 1
        records = 0 if document is None else store.held_at(document, row)
        if not records:
            now = "is gone" if document is None else f"({document.docid!r}) is another one, or has another text"
            raise InputError(
                f"the corpus has changed since the build of {store.folder} was interrupted: document {number} {now}. "
                "Restore the corpus, or delete the folder and build anew"
            )
        row += records
    return number


def _windows(stream: Iterator[Document]) -> Iterator[list[Document]]:
    while window := list(islice(stream, WINDOW)):
        yield window


def _refuse_duplicates(window: list[Document], store: LocalStore | None) -> None:
    """For one-way streams, which no plan has looked at."""
    docids = [document.docid for document in window]
    held = [False] * len(docids) if store is None else store.entries(docids)["row"] >= 0
    seen: set[str] = set()
    for docid, committed in zip(docids, held, strict=True):
        if committed or docid in seen:
            safe = 0 if store is None else len(store)
            raise InputError(f"duplicate docid {docid!r} in the corpus; {safe} documents before it are safe")
        seen.add(docid)
