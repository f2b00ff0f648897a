"""Bi-encoders and cross-encoders of sentence-transformers: what people use today."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.embeddings import document_embeddings
from mixlm_rerank.systems.loading import (
    Loading,
    fingerprint_of,
    load_cross_encoder,
    load_sentence_transformer,
    short_name,
)
from mixlm_rerank.systems.protocol import Footprint, Standalone, by_score, by_score_where
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["BiEncoder", "CrossEncoder"]


class CrossEncoder(Standalone):
    """Any sentence-transformers CrossEncoder (folder or hub id) on full text, or on its first ``max_length`` tokens.

    Raises InputError if it cannot be loaded or gives a pair more than one score, MissingDependency without
    sentence-transformers.
    """

    kind = "full text"

    def __init__(self, source: str, max_length: int | None = None, loading: Loading = Loading()) -> None:
        if max_length is not None and max_length < 1:
            raise InputError(f"max_length must be at least 1, not {max_length}")
        self._model = load_cross_encoder(source, max_length, loading)
        short = short_name(source)
        self.name = short if max_length is None else f"{short}, {max_length} tokens"
        longest = self._model.max_seq_length
        self.description = f"CrossEncoder: {source}, {fingerprint_of(self._model)[:16]}, at most {longest} tokens"

    def prepare(self, work: Workplace) -> None:
        work.documents("full text")

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        pairs = [(query, hit.text or "") for hit in candidates]
        # raw scores: a sigmoid in float32 makes ties of the best
        scores = self._model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return by_score(candidates, scores)


class BiEncoder(Standalone):
    """Any SentenceTransformer (folder or hub id): its similarity of the query and the documents' stored embeddings.

    Raises InputError if it cannot be loaded, MissingDependency without sentence-transformers.
    """

    kind = "bi-encoder"

    def __init__(self, source: str, loading: Loading = Loading()) -> None:
        self._model = load_sentence_transformer(source, loading)
        self.name = short_name(source)
        self.description = f"SentenceTransformer: {source}, {fingerprint_of(self._model)[:16]}"

    def prepare(self, work: Workplace) -> Footprint:
        """Encode all documents, unless that was done before."""
        corpus = work.documents(f"embeddings of {self.name}")
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
