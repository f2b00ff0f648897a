"""Teachers that read the document's text: any sentence-transformers CrossEncoder, or a MixLM's own full-text mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mixlm_rerank.model import MixLM
from mixlm_rerank.scoring import FullTextScorer
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.peers import fingerprint_of, load_cross_encoder

__all__ = ["CrossEncoderTeacher", "FullTextTeacher"]

PAIRS_ON_CPU, PAIRS_ON_GPU = 32, 256  # of a forward pass


class CrossEncoderTeacher:
    """Raw scores (log-odds, where the model was trained with a sigmoid). ``fingerprint``: hash of the model.

    Raises InputError if it cannot be loaded, MissingDependency without sentence-transformers.
    """

    def __init__(self, source: str, loading: Loading = Loading()) -> None:
        self._model = load_cross_encoder(source, loading=loading)
        self.fingerprint = fingerprint_of(self._model)
        self._batch_size = PAIRS_ON_CPU if self._model.device.type == "cpu" else PAIRS_ON_GPU

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Scores of each query's candidates, float32 [n] a query."""
        pairs = [(query, text) for query, own in zip(queries, texts, strict=True) for text in own]
        scores = self._model.predict(
            pairs, batch_size=self._batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return np.split(np.asarray(scores, dtype=np.float32), np.cumsum([len(own) for own in texts])[:-1])


class FullTextTeacher:
    """The ranker of a MixLM on text. Give it a model of its own: what is trained must not teach itself."""

    def __init__(self, model: MixLM) -> None:
        self._scorer = FullTextScorer(model)

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Log-odds of each query's candidates, float32 [n] a query."""
        return [self._scorer.score(query, own).numpy() for query, own in zip(queries, texts, strict=True)]
