"""BM25 of any pair, with a corpus' statistics: what BM25's candidates are not ordered by alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError, optional_import

__all__ = ["BM25Scores"]


class BM25Scores:
    """BM25 (k1 .9, b .4) of any query and document of a corpus, as a share of the query's best in that corpus."""

    def __init__(self, documents: Iterable[str]) -> None:
        with optional_import("this teacher needs bm25s", "train"):
            self._library: Any = importlib.import_module("bm25s")
        texts = list(dict.fromkeys(documents))
        if not texts:
            raise InputError("the corpus holds no documents")
        self._rows = {text: row for row, text in enumerate(texts)}
        self._index = self._library.BM25(k1=0.9, b=0.4)
        self._index.index(self._library.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)

    def __call__(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Scores of each query's documents, float32 [n] in [0, 1] a query; 0 for one without a word of the corpus."""
        lacking = next((text for own in texts for text in own if text not in self._rows), None)
        if lacking is not None:
            raise InputError(f"the document {lacking[:60]!r} ... is not in the corpus of BM25's statistics")
        words = self._library.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
        return [self._shares(own, documents) for own, documents in zip(words, texts, strict=True)]

    def _shares(self, words: list[str], documents: Sequence[str]) -> NDArray[np.float32]:
        if not words:
            return np.zeros(len(documents), dtype=np.float32)
        whole = np.asarray(self._index.get_scores(words), dtype=np.float32)
        shares: NDArray[np.float32] = whole[[self._rows[text] for text in documents]] / max(float(whole.max()), 1e-6)
        return shares
