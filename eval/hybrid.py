"""A teacher that needs no training: late interaction over a bi-encoder's own token states, its cosine, and BM25.

Final hidden states of a bi-encoder know more than their mean: MaxSim over them (ColBERT's score, 2004.12832) ranks
better than the cosine that the model was trained for, and BM25 adds what both miss.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mixlm_rerank.errors import InputError, MissingDependency
from mixlm_rerank.eval.on_disk import OnDisk
from mixlm_rerank.model.inference import inference
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.model.positions import positions_per_forward

__all__ = ["BM25Scores", "HybridTeacher", "HybridWeights", "max_sim"]

POSITIONS_PER_FORWARD = 4096


@dataclass(frozen=True)
class HybridWeights:
    """What the parts count, in log-odds for a difference of 1 in cosine, in MaxSim and in BM25 (its best of the query).

    The defaults give each the range that it has among BM25's first hundred, times its weight on development queries.
    """

    cosine: float = 0.0
    max_sim: float = 27.0
    bm25: float = 1.5


class HybridTeacher:
    """``cosine * a + MaxSim * b + BM25 / (best BM25 of the query) * c``.

    Every document is read once; its states are kept on disk, in float16: 100 KB for 130 tokens of 384 numbers.

    Args:
        encoder: of an embedding model; it is not trained.
        documents: texts of the whole corpus, for BM25's statistics.
        folder: of the states, see :class:`OnDisk`.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        documents: Iterable[str],
        weights: HybridWeights = HybridWeights(),
        folder: Path | None = None,
    ) -> None:
        self._encoder = encoder
        self._weights = weights
        self._documents = documents
        self._read = OnDisk(folder)

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds of documents, float32 [n]. Raises InputError for one that the corpus has not."""
        return self.score_batch([query], [texts])[0]

    @torch.inference_mode()
    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """The same of many queries, each with documents of its own."""
        weights = self._weights
        scores = [torch.zeros(len(own)) for own in texts]
        if weights.cosine or weights.max_sim:
            self._read_all(texts)
            asked = dict(self._states(self._encoder.query_ids(queries)))
            near = [
                self._nearness(asked[row].float(), [self._read[text].to(asked[row].device) for text in own])
                for row, own in enumerate(texts)
            ]
            scores = list(torch.cat(near).cpu().split([len(own) for own in texts]))
        if weights.bm25:
            lexical = [weights.bm25 * self._bm25([query], own)[0] for query, own in zip(queries, texts, strict=True)]
            scores = [own + more for own, more in zip(scores, lexical, strict=True)]
        return [own.numpy() for own in scores]

    def _nearness(self, query: Tensor, documents: Sequence[Tensor]) -> Tensor:
        """Weighted cosine and MaxSim, float32 [n]."""
        weights, near = self._weights, torch.zeros(len(documents), device=query.device)
        if weights.cosine:
            near = near + weights.cosine * (_means(documents) @ _means([query]).T)[:, 0]
        if weights.max_sim:
            near = near + weights.max_sim * max_sim(query, documents)
        return near

    @cached_property
    def _bm25(self) -> BM25Scores:
        """Made when it is first asked: scores that are stored need none."""
        return BM25Scores(self._documents)

    def _read_all(self, texts: Sequence[Sequence[str]]) -> None:
        new = list(dict.fromkeys(text for own in texts for text in own if text not in self._read))
        for row, states in self._states(self._encoder.document_ids(new)):
            self._read[new[row]] = states

    def _states(self, ids: Sequence[list[int]]) -> Iterator[tuple[int, Tensor]]:
        """Row and states of every text, those of like length together."""
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        positions = positions_per_forward(self._encoder.backbone.device, POSITIONS_PER_FORWARD)
        while order:
            size = max(1, positions // len(ids[order[0]]))
            rows, order = order[:size], order[size:]
            with inference(self._encoder):
                found = self._encoder.token_states([ids[row] for row in rows])
            yield from zip(rows, found, strict=True)


class BM25Scores:
    """BM25 (k1 .9, b .4) of any query and document of a corpus, as a share of the query's best in that corpus."""

    def __init__(self, documents: Iterable[str]) -> None:
        try:
            self._library: Any = importlib.import_module("bm25s")
        except ImportError:
            raise MissingDependency("this teacher needs bm25s", "train") from None
        texts = list(dict.fromkeys(documents))
        if not texts:
            raise InputError("the corpus holds no documents")
        self._rows = {text: row for row, text in enumerate(texts)}
        self._index = self._library.BM25(k1=0.9, b=0.4)
        self._index.index(self._library.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)

    def __call__(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        """Texts [q], [n] -> float32 [q, n] in [0, 1]; 0 for a query without a word that the corpus has."""
        lacking = next((text for text in documents if text not in self._rows), None)
        if lacking is not None:
            raise InputError(f"the document {lacking[:60]!r} ... is not in the corpus of BM25's statistics")
        rows = [self._rows[text] for text in documents]
        words = self._library.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
        scores = np.zeros((len(queries), len(documents)), dtype=np.float32)
        for query, own in enumerate(words):
            if own:
                whole = np.asarray(self._index.get_scores(own))
                scores[query] = whole[rows] / max(float(whole.max()), 1e-6)
        return torch.from_numpy(scores)


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


def _means(states: Sequence[Tensor]) -> Tensor:
    return F.normalize(torch.stack([state.float().mean(dim=0) for state in states]), dim=-1)
