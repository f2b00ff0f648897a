"""First stages, which find the candidates that every system ranks."""

from __future__ import annotations

import importlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_rerank.data import read_run
from mixlm_rerank.data.lines import some_ids
from mixlm_rerank.errors import InputError, MissingDependency
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.types import Candidate

if TYPE_CHECKING:
    from mixlm_rerank.integrations.lucene import Fields

__all__ = ["BM25", "DensePyserini", "FirstStage", "RunFile"]


class FirstStage(ABC):
    """Finds candidates for the queries of a collection. Subclasses implement ``find``."""

    name: str  # an exact description

    @abstractmethod
    def find(self, collection: Collection, hits: int) -> Mapping[str, Iterable[Candidate]]:
        """The best ``hits`` documents of each query, best first; queries without any may be left out."""

    def retrieve(self, collection: Collection, depth: int) -> dict[str, list[Candidate]]:
        """The best ``depth`` documents of every query, best first; an empty list for a query without any.

        If the collection says so (``drop_same_id``), the query's own document is dropped before the cut.

        Raises InputError for a depth below 1, a document that occurs twice, a score that is not finite.
        """
        if depth < 1:
            raise InputError(f"depth must be at least 1, not {depth}")
        run, finished = self.find(collection, depth + int(collection.drop_same_id)), {}
        for qid in collection.queries:
            kept = [hit for hit in run.get(qid, ()) if not (collection.drop_same_id and hit.docid == qid)][:depth]
            if len({hit.docid for hit in kept}) < len(kept):
                raise InputError(
                    f"{self.name}: a document occurs twice for query {qid!r}; is its docid twice in the index?"
                )
            bad = next((hit for hit in kept if not math.isfinite(hit.score)), None)
            if bad is not None:
                raise InputError(f"{self.name}: the score of document {bad.docid!r} for query {qid!r} is not finite")
            finished[qid] = kept
        return finished


class RunFile(FirstStage):
    """Candidates from a TREC or MS MARCO run (see :func:`read_run`).

    Retrieval raises InputError for a malformed run, and for a run without any query of the collection.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = f"run file {self.path.name}"

    def find(self, collection: Collection, hits: int) -> dict[str, list[Candidate]]:
        run = read_run(self.path)
        if collection.queries.keys().isdisjoint(run):
            raise InputError(
                f"no query of {self.path} is judged in {collection.name} (run: {some_ids(run)}; judged: "
                f"{some_ids(collection.queries)}): do they belong together?"
            )
        return run


class BM25(FirstStage):
    """BM25 by Pyserini, over a Lucene index that is built from the collection's documents if it does not exist.

    ``fields``: ``"flat"`` searches title and text as one field, ``"multifield"`` as two of equal weight. An existing
    index is checked against the documents.

    Raises InputError for other ``fields``, and for k1 or b out of range. Retrieval raises InputError if the index has
    other documents or fields, or there are no documents to build it from; MissingDependency without Pyserini or Java.
    """

    def __init__(
        self,
        index_folder: str | Path,
        fields: Fields = "flat",
        k1: float = 0.9,
        b: float = 0.4,
        *,
        progress: bool = False,
    ) -> None:
        if fields not in ("flat", "multifield"):
            raise InputError(f'fields must be "flat" or "multifield", not {fields!r}')
        if not (0 <= k1 < math.inf and 0 <= b <= 1):
            raise InputError(f"BM25 takes k1 from 0 upwards and b between 0 and 1, not k1={k1}, b={b}")
        self.folder = Path(index_folder)
        self.fields: Fields = fields
        self.k1, self.b = k1, b
        self.progress = progress
        self.name = f"BM25 (Pyserini, {fields}, k1={k1:g}, b={b:g})"

    def find(self, collection: Collection, hits: int) -> dict[str, list[Candidate]]:
        from mixlm_rerank.integrations.lucene import bm25_run, build_lucene_index, check_lucene_index, open_searcher

        new = not self.folder.exists()
        if new:
            documents = collection.documents(f"a Lucene index at {self.folder}")
            build_lucene_index(documents, self.folder, fields=self.fields, progress=self.progress)
        searcher = open_searcher(self.folder)
        if not new:
            check_lucene_index(searcher, self.folder, self.fields, collection.corpus)
        searcher.set_bm25(self.k1, self.b)
        threads = os.cpu_count() or 1
        return bm25_run(searcher, collection.queries, hits=hits, threads=threads, fields=self.fields)


class DensePyserini(FirstStage):
    """Pyserini's FaissSearcher on a Faiss index in a folder (files ``index`` and ``docid``).

    ``encoder`` is a checkpoint's folder or hub id, or an object with ``encode(query) -> float [d]``; Pyserini
    infers the pooling from the name of a checkpoint. L2 distances are negated to become scores.

    Retrieval raises InputError if there is no index, or the encoder cannot be loaded, does not fit or gives numbers
    that are not finite; MissingDependency without Pyserini, Faiss or Java.
    """

    def __init__(self, index_folder: str | Path, encoder: Any) -> None:
        self.folder = Path(index_folder)
        self.encoder = encoder
        encoder_name = Path(encoder).name if isinstance(encoder, str | Path) else type(encoder).__name__
        self.name = f"dense (Pyserini, {self.folder.name}, {encoder_name})"

    def find(self, collection: Collection, hits: int) -> dict[str, list[Candidate]]:
        searcher = self._searcher()
        queries = collection.queries
        try:
            found = searcher.batch_search(list(queries.values()), list(queries), k=hits)
        except (AssertionError, ValueError):
            raise InputError(
                f"the encoder of {self.name} does not give vectors of {searcher.dimension} numbers, as the index holds"
            ) from None
        for qid in found:  # Faiss returns no hits for a vector with NaN
            if not found[qid] and not np.isfinite(searcher.query_encoder.encode(queries[qid])).all():
                raise InputError(f"the encoder of {self.name} gives numbers that are not finite for query {qid!r}")
        falling = -1 if searcher.index.metric_type == importlib.import_module("faiss").METRIC_L2 else 1
        return {
            qid: [Candidate(str(hit.docid), falling * float(hit.score)) for hit in rows] for qid, rows in found.items()
        }

    def _searcher(self) -> Any:
        from mixlm_rerank.integrations.java import start_java

        if not all((self.folder / part).is_file() for part in ("index", "docid")):
            raise InputError(f"no Faiss index of Pyserini at {self.folder}: it holds two files, index and docid")
        start_java()
        encoder = str(self.encoder) if isinstance(self.encoder, Path) else self.encoder
        try:
            library = importlib.import_module("pyserini.search.faiss")
        except ImportError as error:  # Pyserini does not install Faiss
            raise MissingDependency(f"{self.name}: {error}", "pyserini") from None
        try:
            return library.FaissSearcher(str(self.folder), encoder)
        except (OSError, ValueError, RuntimeError, AssertionError) as error:
            reason = (str(error).splitlines() or ["index and docid differ in length"])[0]
            raise InputError(f"{self.name} cannot be opened: {reason}") from None
