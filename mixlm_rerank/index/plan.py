"""Estimate what a build will take before it starts: one pass over the corpus, and a sample of documents encoded."""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .. import numbers
from ..arguments import check_kind
from ..errors import InputError
from ..model.template import has_content
from ..types import Document, Model
from .encoding import Encoder
from .local import disk_of
from .manifest import MAX_KEY_BYTES, Manifest, key_of

__all__ = ["DOCID_MAP_BYTES", "Job", "check_room", "checked", "docid_hash", "is_stream", "plan"]

SAMPLE = 64
# LMDB bytes per document, measured with docids of 8 characters in random order: 84 while building, then 46 for the
# rewritten map that replaces the first one; plus slack.
DOCID_MAP_BYTES = 150


def is_stream(documents: Iterable[Document]) -> bool:
    """Whether ``documents`` can be iterated only once. Raises InputError for a path, or if they cannot be iterated."""
    if isinstance(documents, str | Path):
        raise InputError(
            f"documents must be a list or another iterable of Document, not {str(documents)!r}: for a corpus file or "
            f"folder give mixlm_rerank.data.open_corpus({str(documents)!r})"
        )
    check_kind("documents", documents, Iterable, "a list or another iterable of Document")
    return iter(documents) is documents


def checked(documents: Iterable[Document], model: Model | None, *, skip_empty: bool) -> Iterator[Document]:
    """The documents that can be encoded. Raises InputError for an unusable docid or (unless skipped) an empty text.

    Without a ``model``, a text counts as empty only if none of its characters is visible.
    """
    is_stream(documents)  # refuses a path
    for number, document in enumerate(documents, 1):
        if not isinstance(document, Document):
            raise InputError(
                f"document {number} is a {type(document).__name__}: expected mixlm_rerank.Document(docid, text, title)"
            )
        size = len(key_of(document.docid))
        if not 0 < size <= MAX_KEY_BYTES:
            raise InputError(f"document {number}: docid of {size} bytes (1 to {MAX_KEY_BYTES} are possible)")
        if _readable(document, model):
            yield document
        elif not skip_empty:
            raise InputError(
                f"document {number} ({document.docid!r}) has no text that the model can read: remove it, or skip such "
                "documents (--skip-empty)"
            )


@dataclass(frozen=True)
class Job:
    """What is to be built, and where. See :meth:`TokenIndex.build`."""

    documents: Iterable[Document]
    model: Model
    folder: Path
    manifest: Manifest  # of an index that is yet to be filled
    skip_empty: bool
    progress: bool

    def stream(self) -> Iterator[Document]:
        """One pass over the documents. Raises InputError for a document that cannot be indexed."""
        return checked(self.documents, self.model, skip_empty=self.skip_empty)


def plan(job: Job, encoder: Encoder) -> int | None:
    """Check the corpus and report expected size and time, before the long work. Returns the number of documents.

    Counts documents, finds duplicate docids (8 bytes of memory per document) and times a sample. A stream, which can be
    read only once, is not checked: returns ``None``. Raises InputError for a corpus without documents, a duplicate
    docid, too little disk space, or a document that :func:`checked` refuses.
    """
    if is_stream(job.documents):
        return None
    hashes = array("Q")
    sample: list[Document] = []
    draw = random.Random(0)
    for number, document in enumerate(job.stream()):
        hashes.append(docid_hash(document.docid))
        if number < SAMPLE:
            sample.append(document)
        elif (slot := draw.randrange(number + 1)) < SAMPLE:
            sample[slot] = document
    if not hashes:
        raise InputError("the corpus holds no documents")
    _refuse_duplicates(job.documents, job.model, np.frombuffer(hashes, dtype=np.uint64))
    read = list(encoder.reader.readings(sample))
    encoder.packed(read[:1])  # warm-up
    start = time.perf_counter()
    records = encoder.packed(read).records
    count, scale = len(hashes), len(hashes) / len(sample)
    seconds, size = scale * (time.perf_counter() - start), int(scale * records.nbytes) + count * DOCID_MAP_BYTES
    check_room(size - disk_of(job.folder), job.folder)  # an interrupted build has written some already
    if job.progress:
        cut = sum(reading.unread > 0 for reading in read) / len(sample)
        too_long = f"; about {cut:.0%} of the documents are too long and lose their end (--passages reads all of them)"
        tqdm.write(
            f"{job.folder}: {count:,} documents, about {size / 1e6:,.1f} MB on disk ({size / count:,.0f} bytes a "
            f"document), about {numbers.duration(seconds)} of encoding{too_long if cut else ''}",
            file=sys.stderr,
        )
    return count


def check_room(needed: int, folder: Path) -> None:
    """Raises InputError if the disk of ``folder`` has fewer than ``needed`` bytes free."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(f"the index needs about {needed / 1e6:,.0f} MB; {existing} has {free / 1e6:,.0f} MB free")


def _refuse_duplicates(documents: Iterable[Document], model: Model, hashes: NDArray[np.uint64]) -> None:
    values, counts = np.unique(hashes, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    seen: dict[str, int] = {}
    if suspects:  # equal hashes need not mean equal docids: compare docids
        for number, document in enumerate(documents, 1):
            if docid_hash(document.docid) in suspects and _readable(document, model):
                if document.docid in seen:
                    raise InputError(
                        f"duplicate docid {document.docid!r}: documents {seen[document.docid]} and {number}"
                    )
                seen[document.docid] = number


def _readable(document: Document, model: Model | None) -> bool:
    parts = [document.title, document.text]  # not joined: the separator would count as readable
    return any(model.item_encoder.readable(parts) if model else map(has_content, parts))


def docid_hash(docid: str) -> int:
    """64-bit hash of a docid."""
    return int.from_bytes(hashlib.blake2b(key_of(docid), digest_size=8).digest(), "little")
