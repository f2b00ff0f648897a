"""Build a token index from a corpus: bounded memory, committed in parts, resumable to the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ..arguments import check_model
from ..errors import InputError
from ..progress import progress_bar
from ..types import Document, Model
from .encoding import Encoder
from .local import LocalStore
from .lock import refuse_strangers, writer_lock
from .manifest import Manifest
from .plan import Job, plan
from .quantiser import Quantiser
from .segments import Segments

__all__ = ["build", "first_known", "new_manifest"]

WINDOW = 2048  # documents that are looked up together


def build(job: Job) -> None:
    """Build the index of ``job`` in this process."""
    begun = _begun(job)  # refuse before the long work
    encoder = Encoder(job.model, job.manifest if begun is None else begun.manifest)  # its format may be an older one
    total = plan(job, encoder)
    with writer_lock(job.folder):
        store = _begun(job)
        stream = job.stream()
        done = 0 if store is None else _skip_committed(stream, store)
        with progress_bar(total, "index", "documents", enabled=job.progress, initial=done) as bar:
            while window := list(islice(stream, WINDOW)):
                if (twice := first_known([document.docid for document in window], store)) is not None:
                    safe = 0 if store is None else len(store)
                    raise InputError(f"duplicate docid {twice!r} in the corpus; {safe} documents before it are safe")
                for part in encoder.parts(window, bar):
                    if store is None:  # not before there is something to keep
                        store = LocalStore.create(job.folder, job.manifest)
                    store.append(part)
        if store is None:
            raise InputError("the corpus holds no documents")
        if total not in (None, len(store)):
            raise InputError(
                f"the corpus had {total} documents at first and {len(store)} now: it changed under the build"
            )
        store.finish()


def new_manifest(model: Model, precision: str, corpus: str, *, passages: bool = False) -> Manifest:
    """The manifest of an index that is yet to be filled. Raises InputError for an unknown precision."""
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


def _begun(job: Job) -> LocalStore | None:
    """The store of an interrupted build that has committed documents; ``None`` if the build starts anew.

    Raises InputError, IndexMismatch for any other folder.
    """
    folder = job.folder
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
    store.manifest.check_model(job.model, folder)
    if store.manifest.build_options != job.manifest.build_options:
        raise InputError(f"{folder} was begun with {store.manifest.build_options}, not {job.manifest.build_options}")
    return store


def _skip_committed(stream: Iterator[Document], store: LocalStore) -> int:
    """Skip the documents that an interrupted build has committed. Raises InputError if they have changed."""
    row = number = 0
    while row < store.rows:
        document, number, records = next(stream, None), number + 1, 0
        if document is not None:
            entries = store.entries([document.docid])
            if entries["row"][0] == row and entries["content"][0].tobytes() == store.manifest.content_hash(document):
                records = int(store.counts(entries)[0])
        if not records:
            now = "is gone" if document is None else f"({document.docid!r}) is another one, or has another text"
            raise InputError(
                f"the corpus has changed since the build of {store.folder} was interrupted: document {number} {now}. "
                "Restore the corpus, or delete the folder and build anew"
            )
        row += records
    return number


def first_known(docids: Sequence[str], store: LocalStore | None) -> str | None:
    """The first of ``docids`` that ``store`` holds already, or that occurs twice; ``None`` if there is none."""
    rows = [-1] * len(docids) if store is None else store.entries(docids)["row"].tolist()
    seen: set[str] = set()
    for docid, row in zip(docids, rows, strict=True):
        if row >= 0 or docid in seen:
            return docid
        seen.add(docid)
    return None
