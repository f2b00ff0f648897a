"""Teachers that read the document's text: any sentence-transformers CrossEncoder, or a MixLM's own full-text mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mixlm_rerank.eval.loading import Loading
from mixlm_rerank.eval.peers import load_cross_encoder
from mixlm_rerank.model import MixLM
from mixlm_rerank.scoring import FullTextScorer

__all__ = ["CrossEncoderTeacher", "FullTextTeacher"]


class CrossEncoderTeacher:
    """Raw scores (log-odds, where the model was trained with a sigmoid).

    Raises InputError if it cannot be loaded, MissingDependency without sentence-transformers.
    """

    def __init__(self, source: str, loading: Loading = Loading()) -> None:
        self._model = load_cross_encoder(source, loading=loading)

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Scores of one query's candidates, float32 [n]."""
        pairs = [(query, text) for text in texts]
        scores = self._model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return np.asarray(scores, dtype=np.float32)


class FullTextTeacher:
    """The ranker of a MixLM on text. Give it a model of its own: what is trained must not teach itself."""

    def __init__(self, model: MixLM) -> None:
        self._scorer = FullTextScorer(model)

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds of one query's candidates, float32 [n]."""
        return self._scorer.score(query, texts).numpy()
