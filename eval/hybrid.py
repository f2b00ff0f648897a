"""A teacher that needs no training: late interaction over a bi-encoder's own token states, its cosine, and BM25.

Final hidden states of a bi-encoder know more than their mean: MaxSim over them (ColBERT's score, 2004.12832) ranks
better than the cosine that the model was trained for, and BM25 adds what both miss.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mixlm_rerank.errors import InputError, MissingDependency
from mixlm_rerank.model.item_encoder import ItemEncoder

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

    Every document is read once; its states stay in memory, in float16: 100 KB for 130 tokens of 384 numbers.

    Args:
        encoder: of an embedding model; it is not trained.
        documents: texts of the whole corpus, for BM25's statistics.
    """

    def __init__(
        self, encoder: ItemEncoder, documents: Iterable[str], weights: HybridWeights = HybridWeights()
    ) -> None:
        self._encoder = encoder
        self._weights = weights
        self._documents = documents
        self._read: dict[str, Tensor] = {}

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds of documents, float32 [n]. Raises InputError for one that the corpus has not."""
        weights = self._weights
        scores = torch.zeros(1, len(texts))
        if weights.cosine or weights.max_sim:
            asked, read = self._states(self._encoder.query_ids([query])), self._states_of(texts)
            if weights.cosine:
                scores += weights.cosine * (_means(asked) @ _means(read).T)
            if weights.max_sim:
                scores += weights.max_sim * max_sim(asked, read)
        if weights.bm25:
            scores += weights.bm25 * self._bm25([query], texts)
        return scores[0].numpy()

    @cached_property
    def _bm25(self) -> BM25Scores:
        """Made when it is first asked: scores that are stored need none."""
        return BM25Scores(self._documents)

    def _states_of(self, texts: Sequence[str]) -> list[Tensor]:
        new = list(dict.fromkeys(text for text in texts if text not in self._read))
        states = self._states(self._encoder.document_ids(new))
        self._read |= {text: own.half() for text, own in zip(new, states, strict=True)}
        return [self._read[text].float() for text in texts]

    @torch.inference_mode()
    def _states(self, ids: Sequence[list[int]]) -> list[Tensor]:
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        states: dict[int, Tensor] = {}
        while order:
            size = max(1, POSITIONS_PER_FORWARD // len(ids[order[0]]))
            rows, order = order[:size], order[size:]
            found = self._encoder.token_states([ids[row] for row in rows])
            states |= {row: state.float().cpu() for row, state in zip(rows, found, strict=True)}
        return [states[row] for row in range(len(ids))]


class BM25Scores:
    """BM25 (k1 .9, b .4) of any query and document of a corpus, as a share of the query's best in that corpus."""

    def __init__(self, documents: Iterable[str]) -> None:
        try:
            self._library: Any = importlib.import_module("bm25s")
        except ImportError:
            raise MissingDependency('this teacher needs bm25s: pip install "mixlm-rerank[train]"') from None
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


def max_sim(queries: Sequence[Tensor], documents: Sequence[Tensor]) -> Tensor:
    """Mean over a query's positions of the best cosine among a document's. [length, d] each -> float32 [q, n].

    A query's first and last position, which are special tokens, do not count where there are others.
    """
    padded = pad_sequence([F.normalize(document, dim=-1) for document in documents], batch_first=True)
    lengths = torch.tensor([len(document) for document in documents])
    beyond = torch.arange(padded.shape[1]) >= lengths[:, None]
    rows = []
    for query in queries:
        own = F.normalize(query[1:-1] if len(query) > 2 else query, dim=-1)
        similar = torch.einsum("qd,nld->qnl", own, padded).masked_fill(beyond, -1.0)
        rows.append(similar.max(dim=2).values.mean(dim=0))
    return torch.stack(rows)


def _means(states: Sequence[Tensor]) -> Tensor:
    return F.normalize(torch.stack([state.mean(dim=0) for state in states]), dim=-1)
