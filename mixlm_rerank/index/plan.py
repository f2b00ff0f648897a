"""What a build will take, found out before it starts: a first pass over the corpus, and a few documents encoded."""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model import MixLM
from ..model.template import visible
from ..types import Document
from .entries import MAX_KEY_BYTES, key_of

__all__ = ["DOCID_MAP_BYTES", "BuildPlan", "check_room", "checked", "docid_hash", "plan_build"]

SAMPLE = 64
# LMDB bytes a document, measured with docids of 8 characters in random order: 84 while building, then 46 of the map
# that is written beside it and replaces it; plus slack.
DOCID_MAP_BYTES = 150


@dataclass(frozen=True)
class BuildPlan:
    """How many documents, how many bytes on disk, and about how many seconds of encoding."""

    documents: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.documents:,} documents, about {self.bytes / 1e6:,.1f} MB on disk "
            f"({self.bytes / self.documents:,.0f} bytes a document), "
            f"about {_duration(self.seconds)} of encoding"
        )


def checked(documents: Iterable[Document], model: MixLM | None, *, skip_empty: bool) -> Iterator[Document]:
    """The documents that can be encoded. Raises InputError for an unusable docid or (unless skipped) an empty text.

    Without a ``model`` a text is taken for empty only if nothing in it is visible.
    """
    for number, document in enumerate(documents, 1):
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


def plan_build(documents: Iterable[Document], model: MixLM, record_bytes: int, *, skip_empty: bool) -> BuildPlan:
    """Read the whole corpus once: count, find duplicate docids (8 bytes of memory a document), time a sample.

    Raises InputError for a corpus without documents, a duplicate docid, or what :func:`checked` finds.
    """
    hashes = array("Q")
    sample: list[Document] = []
    draw = random.Random(0)
    for number, document in enumerate(checked(documents, model, skip_empty=skip_empty)):
        hashes.append(docid_hash(document.docid))
        if number < SAMPLE:
            sample.append(document)
        elif (slot := draw.randrange(number + 1)) < SAMPLE:
            sample[slot] = document
    if not hashes:
        raise InputError("the corpus holds no documents")
    _refuse_duplicates(documents, model, np.frombuffer(hashes, dtype=np.uint64))
    return BuildPlan(
        len(hashes), len(hashes) * (record_bytes + DOCID_MAP_BYTES), len(hashes) * _seconds_a_document(sample, model)
    )


def check_room(needed: int, folder: Path) -> None:
    """Raises InputError if the disk of ``folder`` has not ``needed`` more bytes."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(f"the index needs about {needed / 1e6:,.0f} MB; {existing} has {free / 1e6:,.0f} MB free")


def _refuse_duplicates(documents: Iterable[Document], model: MixLM, hashes: NDArray[np.uint64]) -> None:
    values, counts = np.unique(hashes, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    seen: dict[str, int] = {}
    if suspects:  # equal hashes, or equal docids: a second look tells
        for number, document in enumerate(documents, 1):
            if docid_hash(document.docid) in suspects and _readable(document, model):
                if document.docid in seen:
                    raise InputError(
                        f"duplicate docid {document.docid!r}: documents {seen[document.docid]} and {number}"
                    )
                seen[document.docid] = number


def _readable(document: Document, model: MixLM | None) -> bool:
    return model.item_encoder.readable([document.content])[0] if model else visible(document.content)


def docid_hash(docid: str) -> int:
    """64 bits of a docid."""
    return int.from_bytes(hashlib.blake2b(key_of(docid), digest_size=8).digest(), "little")


def _seconds_a_document(sample: list[Document], model: MixLM) -> float:
    model.encode([sample[0].content])  # warm-up
    start = time.perf_counter()
    model.encode([document.content for document in sample])
    return (time.perf_counter() - start) / len(sample)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
