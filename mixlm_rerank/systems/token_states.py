"""Baselines for a few embedding tokens: one vector for every token of a document, kept on disk.

Final hidden states of a bi-encoder hold more information than their mean: MaxSim over them (ColBERT's score,
2004.12832) ranks better than the cosine that the model was trained for. Systems that keep all vectors read all
documents before the first query.
"""

from __future__ import annotations

import os
import tempfile
import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.model.running import inference, of_like_length
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.loading import Loading, fingerprint_of, load_multi_vector_encoder, short_name
from mixlm_rerank.systems.mixlm import OfMixLM
from mixlm_rerank.systems.protocol import Footprint, System, by_score_where
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["AllStates", "MultiVector", "OnDisk", "TokenStates", "max_sim"]

AT_ONCE = 512  # documents


class OnDisk:
    """Mapping ``text -> tensor`` of any shape, in float16, in a file that vanishes with the process. Memory holds only
    texts and offsets, and what the system's page cache has room for.

    ``folder``: folder of the file, which has no name; None: the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        weakref.finalize(self, self._file.close)
        self._places: dict[str, tuple[int, torch.Size]] = {}

    def __contains__(self, text: object) -> bool:
        return text in self._places

    def __setitem__(self, text: str, tensor: Tensor) -> None:
        """Raises InputError for values that are not finite in float16 (maximum 65,504)."""
        values = tensor.detach().to("cpu", torch.float16).contiguous()
        if not values.isfinite().all():
            raise InputError(f"the model gives values that are not finite in float16, for the text {text[:60]!r}")
        self._places[text] = (self._file.seek(0, os.SEEK_END), values.shape)
        self._file.write(values.numpy().data)

    def __getitem__(self, text: str) -> Tensor:
        """The tensor, on the CPU."""
        place, shape = self._places[text]
        values = np.empty(shape, dtype=np.float16)
        self._file.seek(place)
        self._file.readinto(values.data)
        return torch.from_numpy(values)


class TokenStates:
    """Token states of documents, each read once and kept on disk in float16: 100 KB for 130 tokens of 384 numbers.

    Args:
        encoder: item encoder of an embedding model; it is not trained.
        folder: where the states are kept, see :class:`OnDisk`.
    """

    def __init__(self, encoder: ItemEncoder, folder: Path | None = None) -> None:
        self._encoder = encoder
        self._read = OnDisk(folder)

    def max_sim(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Late interaction of each query with its own documents, float32 [n] a query; see :func:`max_sim`."""
        return self._each(max_sim, queries, texts)

    def cosine(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Cosine of each query with its own documents, by the bi-encoder's embeddings, float32 [n] a query."""
        return self._each(self._cosine, queries, texts)

    def _cosine(self, query: Tensor, documents: Sequence[Tensor]) -> Tensor:
        embeddings = [self._encoder.embedding_of(states.float()) for states in (query, *documents)]
        own, *others = F.normalize(torch.stack(embeddings), dim=-1).split([1, len(documents)])
        near: Tensor = (others[0] @ own.T)[:, 0]
        return near

    @torch.inference_mode()
    def _each(
        self, near: Callable[[Tensor, Sequence[Tensor]], Tensor], queries: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float32]]:
        new = list(dict.fromkeys(text for own in texts for text in own if text not in self._read))
        for row, states in _states_of_texts(self._encoder, self._encoder.document_ids(new)):
            self._read[new[row]] = states
        asked = dict(_states_of_texts(self._encoder, self._encoder.query_ids(queries)))
        found = [
            near(asked[row].float(), [self._read[text].to(asked[row].device) for text in own])
            for row, own in enumerate(texts)
        ]
        return [own.numpy() for own in torch.cat(found).cpu().split([len(own) for own in texts])]


def _states_of_texts(encoder: ItemEncoder, ids: Sequence[list[int]]) -> Iterator[tuple[int, Tensor]]:
    """Yield row and final states [length, d] of every text, given as token ids; similar lengths share a batch."""
    for rows in of_like_length(ids, encoder.backbone.device):
        with inference(encoder):
            found = encoder.token_states([ids[row] for row in rows])
        yield from zip(rows, found, strict=True)


def max_sim(query: Tensor, documents: Sequence[Tensor]) -> Tensor:
    """Mean over a query's positions of the best cosine among a document's. [length, d] each -> float32 [n].

    The query's first and last position, which are special tokens, do not count where there are others.
    """
    padded = F.normalize(pad_sequence(list(documents), batch_first=True).float(), dim=-1)
    lengths = torch.tensor([len(document) for document in documents], device=query.device)
    beyond = torch.arange(padded.shape[1], device=query.device) >= lengths[:, None]
    own = F.normalize(query[1:-1] if len(query) > 2 else query, dim=-1)
    similar = (padded @ own.T).masked_fill(beyond[:, :, None], -1.0)
    return similar.amax(dim=1).mean(dim=1)


class _KeepsAll(System):
    """Reads every document before the first query, and scores the candidates by their stored vectors."""

    @abstractmethod
    def _read(self, texts: Sequence[str]) -> Iterator[tuple[int, Tensor]]:
        """Yield row and vectors, float [length, d], of each text, in any order."""

    @abstractmethod
    def _score(self, query: str, documents: Sequence[Tensor]) -> Tensor:
        """Scores of documents, float [n], from their vectors, float32 [length, d] each."""

    def prepare(self, work: Workplace) -> Footprint:
        """Read all documents that have text; the others are ranked last."""
        corpus = work.collection.documents(f"the vectors of {self.name}")
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
    """A MixLM with a mix layer that reads every state of a document at that layer, instead of a few pooled ones.

    This is PreTTR (2004.14255) or, with documents fixed above the mix layer, MICE (2602.16299). Raises InputError
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
        """Cut out of a cross-encoder, without further training. Raises as :meth:`MixLM.from_cross_encoder`."""
        options = {"mix_layer": mix_layer, "fixed_documents": fixed_documents, "local_files_only": loading.offline}
        model = MixLM.from_cross_encoder(source, tokens=1, **options).to(loading.device_name())  # type: ignore[arg-type]
        return cls(model, short_name(source))

    def _read(self, texts: Sequence[str]) -> Iterator[tuple[int, Tensor]]:
        encoder = self.model.item_encoder
        for row, states in _states_of_texts(encoder, encoder.document_ids(texts)):
            yield row, states[min(encoder.lead, len(states) - 1) :]

    def _score(self, query: str, documents: Sequence[Tensor]) -> Tensor:
        ranker, found = self.model.ranker, torch.empty(len(documents))
        with inference(self.model):
            prefix = ranker.prefixes([query])[0]
            for rows in of_like_length(documents, ranker.device, len(prefix)):
                items = [self.model.project(documents[row]) for row in rows]
                if ranker.packs_pairs:
                    (states,) = ranker.forward_packed([prefix], [_padded(items)])
                else:
                    states = ranker([prefix] * len(rows), items)
                found[rows] = self.model.readout(states).float().cpu()
        return found


def _padded(items: Sequence[Tensor]) -> Tensor:
    """States of documents, [length, d] each -> [n, longest, d + 1]. The logarithm of a size, -inf, masks padding."""
    lengths = torch.tensor([len(item) for item in items], device=items[0].device)
    padded = pad_sequence(list(items), batch_first=True)
    beyond = torch.arange(padded.shape[1], device=padded.device) >= lengths[:, None]
    return torch.cat([padded, padded.new_zeros(beyond.shape).masked_fill(beyond, -torch.inf)[:, :, None]], dim=2)


class MultiVector(_KeepsAll):
    """Any MultiVectorEncoder of sentence-transformers, including PyLate's and Stanford's ColBERT checkpoints.

    ``pooling``: tokens of a document per stored vector, by hierarchical clustering (2409.14683). Raises InputError for
    a model that was not trained for late interaction.
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
