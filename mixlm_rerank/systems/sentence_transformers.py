"""Bi-encoders and cross-encoders of sentence-transformers: what people use today.

Document embeddings are computed once for each model and corpus, and kept in a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mixlm_rerank.data import Corpus
from mixlm_rerank.data.corpus import CorpusIdentity
from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import FirstStage
from mixlm_rerank.systems.loading import (
    Loading,
    fingerprint_of,
    load_cross_encoder,
    load_sentence_transformer,
    short_name,
)
from mixlm_rerank.systems.protocol import Footprint, System, by_score, by_score_where
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, Document, ScoredDoc

__all__ = ["BiEncoder", "CrossEncoder", "DenseSentenceTransformers", "Embeddings", "document_embeddings"]

PAIRS_ON_CPU, PAIRS_ON_GPU = 32, 256  # pairs per forward pass
AT_ONCE = 8192  # documents encoded together: sorted by length, then written to disk
VECTORS, DOCIDS = "embeddings.npy", "docids.json"


class CrossEncoder(System):
    """Any sentence-transformers CrossEncoder (folder or hub id) on full text, or on its first ``max_length`` tokens.

    Also a teacher. ``fingerprint``: hash of the model.

    Raises InputError if it cannot be loaded or gives a pair more than one score, MissingDependency without
    sentence-transformers.
    """

    kind = "full text"

    def __init__(self, source: str, max_length: int | None = None, loading: Loading = Loading()) -> None:
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length must be at least 1, not {max_length}")
        self._model = load_cross_encoder(source, max_length, loading)
        self.fingerprint = fingerprint_of(self._model)
        self._batch_size = PAIRS_ON_CPU if self._model.device.type == "cpu" else PAIRS_ON_GPU
        short = short_name(source)
        self.name = short if max_length is None else f"{short}, {max_length} tokens"
        longest = self._model.max_seq_length
        self.description = f"CrossEncoder: {source}, {self.fingerprint[:16]}, at most {longest} tokens"

    def prepare(self, work: Workplace) -> None:
        work.collection.documents("full text")

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return by_score(candidates, self.score_batch([query], [[hit.text or "" for hit in candidates]])[0])

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Raw scores of each query's candidates, float32 [n] a query: after a sigmoid in float32 the best would tie.

        They are log-odds where the model was trained with a sigmoid.
        """
        pairs = [(query, text) for query, own in zip(queries, texts, strict=True) for text in own]
        scores = self._model.predict(
            pairs, batch_size=self._batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return np.split(np.asarray(scores, dtype=np.float32), np.cumsum([len(own) for own in texts])[:-1])


class BiEncoder(System):
    """Any SentenceTransformer (folder or hub id): its similarity between the query and stored document embeddings.

    Raises InputError if it cannot be loaded, MissingDependency without sentence-transformers.
    """

    kind = "bi-encoder"

    def __init__(self, source: str, loading: Loading = Loading()) -> None:
        self._model = load_sentence_transformer(source, loading)
        self.name = short_name(source)
        self.description = f"SentenceTransformer: {source}, {fingerprint_of(self._model)[:16]}"

    def prepare(self, work: Workplace) -> Footprint:
        """Encode all documents, unless that was done before."""
        corpus = work.collection.documents(f"embeddings of {self.name}")
        self._documents = document_embeddings(self._model, corpus, work.indexes / "embeddings", progress=work.progress)
        self._rows = {docid: row for row, docid in enumerate(self._documents.docids)}
        return Footprint(float(self._documents.vectors[0].nbytes), None)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        def scores(hits: Sequence[Candidate]) -> torch.Tensor:
            embedding = self._model.encode_query([query], convert_to_numpy=True, show_progress_bar=False)
            rows = [self._rows[hit.docid] for hit in hits]
            found: torch.Tensor = self._model.similarity(embedding, self._documents.vectors[rows])[0]
            return found

        known = [hit.docid in self._rows for hit in candidates]  # those without text have no embedding
        return by_score_where(known, candidates, scores)


class DenseSentenceTransformers(FirstStage):
    """Exact search with a sentence-transformers model, by its own similarity and with its own prompts.

    The documents' embeddings are kept in ``folder``, by model and corpus, so that the next run is quick.

    Raises InputError if the model cannot be loaded, MissingDependency without sentence-transformers.
    """

    def __init__(
        self, source: str | Path, folder: str | Path, loading: Loading = Loading(), *, progress: bool = False
    ) -> None:
        self._model = load_sentence_transformer(str(source), loading)
        self.folder, self.progress = Path(folder), progress
        self.name = f"dense ({Path(source).name}, exact {self._model.similarity_fn_name})"

    def find(self, collection: Collection, hits: int) -> dict[str, list[Candidate]]:
        from sentence_transformers.util import semantic_search

        corpus, texts = collection.documents(self.name), list(collection.queries.values())
        documents = document_embeddings(self._model, corpus, self.folder, progress=self.progress)
        queries = torch.from_numpy(self._model.encode_query(texts, convert_to_numpy=True, show_progress_bar=False))
        vectors, near = torch.from_numpy(documents.vectors), self._model.similarity
        found = semantic_search(queries.float(), vectors, top_k=hits, score_function=near)
        return {
            qid: [Candidate(documents.docids[int(row["corpus_id"])], float(row["score"])) for row in rows]
            for qid, rows in zip(collection.queries, found, strict=True)
        }


@dataclass(frozen=True)
class Embeddings:
    """``vectors``: float32 [n, d], memory-mapped; row i is document ``docids[i]``."""

    docids: list[str]
    vectors: NDArray[np.float32]


def document_embeddings(model: Any, corpus: Corpus, folder: Path, *, progress: bool = False) -> Embeddings:
    """Embeddings from ``folder`` if this model has encoded these documents before, else encoded now and kept there.

    Documents without text are left out. The corpus is read twice. An interrupted run starts over.

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
            if not place.is_dir():  # it exists if another process was faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    docids = json.loads((place / DOCIDS).read_text(encoding="utf-8"))  # the order of the corpus may have changed since
    # "c" (copy-on-write): PyTorch requires writable memory; nothing reaches the file
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
