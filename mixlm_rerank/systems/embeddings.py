"""Document embeddings of a sentence-transformers model: computed once for each model and corpus, kept in a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mixlm_rerank.data import Corpus
from mixlm_rerank.data.identity import CorpusIdentity
from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.loading import fingerprint_of
from mixlm_rerank.types import Document

__all__ = ["Embeddings", "document_embeddings"]

AT_ONCE = 8192  # documents encoded together: sorted by length, then written to disk
VECTORS, DOCIDS = "embeddings.npy", "docids.json"


@dataclass(frozen=True)
class Embeddings:
    """``vectors``: float32 [n, d], memory-mapped; row i is document ``docids[i]``."""

    docids: list[str]
    vectors: NDArray[np.float32]


def document_embeddings(model: Any, corpus: Corpus, folder: Path, *, progress: bool = False) -> Embeddings:
    """Those in ``folder`` if they were made by this model of these documents, else made now and kept there.

    Documents without text are left out. The corpus is read twice. An interrupted run begins anew.

    Raises InputError for a corpus without documents, with a docid that occurs twice, or with other documents at its
    second reading.
    """
    identity = CorpusIdentity()
    docids = []
    for document in _with_text(corpus):
        identity.add(document)
        docids.append(document.docid)
    if not docids:
        raise InputError("the corpus holds no documents")
    if len(set(docids)) < len(docids):
        twice = Counter(docids).most_common(1)[0][0]
        raise InputError(f"duplicate docid {twice!r} in the corpus: docids must be unique")
    place = folder / hashlib.sha256(f"{fingerprint_of(model)} {identity.digest}".encode()).hexdigest()[:16]
    if not place.exists():
        draft = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        draft.mkdir(parents=True, exist_ok=True)
        try:
            _encode(model, corpus, docids, draft, progress)
            with writing(draft / DOCIDS) as file:
                json.dump(docids, file)
            draft.rename(place)
        except OSError:
            if not place.is_dir():  # it is there where another process was quicker
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    docids = json.loads((place / DOCIDS).read_text(encoding="utf-8"))  # the corpus may have come in another order since
    # "c": PyTorch wants memory that can be written; nothing reaches the file
    return Embeddings(docids, np.load(place / VECTORS, mmap_mode="c"))


def _encode(model: Any, corpus: Corpus, docids: list[str], draft: Path, progress: bool) -> None:
    documents = _with_text(corpus)
    vectors = None
    row = 0
    with progress_bar(len(docids), "encode", "documents", enabled=progress) as bar:
        while batch := list(islice(documents, AT_ONCE)):
            if [document.docid for document in batch] != docids[row : row + len(batch)]:
                break
            texts = [document.content for document in batch]
            found = model.encode_document(texts, convert_to_numpy=True, show_progress_bar=False)
            if vectors is None:
                shape = (len(docids), found.shape[1])
                vectors = open_memmap(draft / VECTORS, mode="w+", dtype=np.float32, shape=shape)
            vectors[row : row + len(batch)] = found
            row += len(batch)
            bar.update(len(batch))
    if vectors is None or batch or row < len(docids):
        raise InputError("the corpus gives other documents at its second reading: was it changed meanwhile?")
    vectors.flush()


def _with_text(corpus: Corpus) -> Iterator[Document]:
    return (document for document in corpus if document.content.strip())
