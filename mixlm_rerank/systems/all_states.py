"""Systems that keep a vector for every token of a document: what few embedding tokens are compared with.

All documents are read beforehand, and their vectors lie on disk in float16, for as long as the evaluation runs.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.running import inference, positions_per_forward
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.loading import Loading, fingerprint_of, load_multi_vector_encoder, short_name
from mixlm_rerank.systems.mixlm import OfMixLM
from mixlm_rerank.systems.protocol import Footprint, System, by_score_where
from mixlm_rerank.systems.token_states import OnDisk, states_of_texts
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["AllStates", "MultiVector"]

AT_ONCE = 512  # documents
POSITIONS_PER_FORWARD = 4096


class _KeepsAll(System):
    """Reads every document before the first query, and scores the candidates by the vectors that it kept of them."""

    @abstractmethod
    def _read(self, texts: Sequence[str]) -> Iterator[tuple[int, Tensor]]:
        """Row and vectors of each text, float [length, d], in any order."""

    @abstractmethod
    def _score(self, query: str, documents: Sequence[Tensor]) -> Tensor:
        """Vectors of documents, float32 [length, d] each -> their scores, float [n]."""

    def prepare(self, work: Workplace) -> Footprint:
        """Read all documents that have text; the others are ranked last."""
        corpus = work.documents(f"the vectors of {self.name}")
        count = sum(1 for _ in corpus)
        self._vectors = OnDisk(work.folder)
        texts = (document.content for document in corpus if document.content.strip())
        numbers, documents, started = 0, 0, time.perf_counter()
        with progress_bar(count, f"read by {self.name}", "documents", enabled=work.progress) as bar:
            while batch := list(islice(texts, AT_ONCE)):
                for row, vectors in self._read(batch):
                    self._vectors[batch[row]] = vectors
                    numbers += vectors.numel()
                documents += len(batch)
                bar.update(len(batch))
        return Footprint(2 * numbers / max(1, documents), time.perf_counter() - started)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        def scores(hits: Sequence[Candidate]) -> Tensor:
            return self._score(query, [self._vectors[hit.text or ""].float() for hit in hits]).cpu()

        return by_score_where([(hit.text or "") in self._vectors for hit in candidates], candidates, scores)


class AllStates(_KeepsAll, OfMixLM):
    """A model with a mix layer that is given every state of that layer, instead of a few pooled ones.

    This is PreTTR (2004.14255) and, where documents are fixed above the mix layer, MICE (2602.16299). Raises InputError
    for a model without a mix layer.
    """

    def __init__(self, model: MixLM, name: str | None = None, *, seed: str | None = None) -> None:
        config = model.config
        if not config.mix_layer:
            raise InputError(
                f"{model.name} has no mix layer, at which all states of a document could enter: give a model that was "
                "cut out of a cross-encoder (MixLM.from_cross_encoder, mixlm-rerank distill)"
            )
        layer = f"{'MICE' if config.fixed_documents else 'PreTTR'} m={config.mix_layer}"
        super().__init__(model, f"all states ({layer})" if name is None else f"{name} as {layer}", seed)

    @classmethod
    def cut(cls, source: str, mix_layer: int | None, loading: Loading, *, fixed_documents: bool) -> AllStates:
        """Made of a cross-encoder, which is not trained further. Raises as :meth:`MixLM.from_cross_encoder`."""
        options = {"mix_layer": mix_layer, "fixed_documents": fixed_documents, "local_files_only": loading.offline}
        model = MixLM.from_cross_encoder(source, tokens=1, **options).to(loading.device_name())  # type: ignore[arg-type]
        return cls(model, short_name(source))

    def _read(self, texts: Sequence[str]) -> Iterator[tuple[int, Tensor]]:
        encoder = self.model.item_encoder
        for row, states in states_of_texts(encoder, encoder.document_ids(texts)):
            yield row, states[min(encoder.lead, len(states) - 1) :]

    def _score(self, query: str, documents: Sequence[Tensor]) -> Tensor:
        ranker, found = self.model.ranker, torch.empty(len(documents))
        order = sorted(range(len(documents)), key=lambda row: -len(documents[row]))
        with inference(self.model):
            prefix = ranker.prefixes([query])[0]
            positions = positions_per_forward(ranker.device, POSITIONS_PER_FORWARD)
            while order:
                size = max(1, positions // (len(prefix) + len(documents[order[0]])))
                rows, order = order[:size], order[size:]
                states = ranker([prefix] * len(rows), [self.model.project(documents[row]) for row in rows])
                found[rows] = self.model.readout(states).float().cpu()
        return found


class MultiVector(_KeepsAll):
    """Any MultiVectorEncoder of sentence-transformers, PyLate's and Stanford's checkpoints among them (ColBERT).

    ``pooling``: one vector for so many tokens of a document, by hierarchical clustering (2409.14683). Raises
    InputError for a model that was not trained for late interaction.
    """

    def __init__(self, source: str, pooling: int | None = None, loading: Loading = Loading()) -> None:
        self._model = load_multi_vector_encoder(source, loading)
        self._options = {}
        self.name = short_name(source)
        if pooling is not None:
            from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

            if pooling < 1:
                raise InputError(f"a vector stands for at least 1 token, not {pooling}")
            self._options = {"token_pooling": HierarchicalTokenPooling(pooling)}
            self.name += f", a vector for {pooling} tokens"
        self.description = f"MultiVectorEncoder: {source}, {fingerprint_of(self._model)[:16]}, pooling {pooling}"

    def _read(self, texts: Sequence[str]) -> Iterator[tuple[int, Tensor]]:
        found = self._model.encode_document(texts, show_progress_bar=False, convert_to_numpy=False, **self._options)
        return enumerate(found)

    def _score(self, query: str, documents: Sequence[Tensor]) -> Tensor:
        own = self._model.encode_query([query], show_progress_bar=False, convert_to_numpy=False)
        scores: Tensor = self._model.similarity([vectors.cpu().float() for vectors in own], list(documents))[0]
        return scores
