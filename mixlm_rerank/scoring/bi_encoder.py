"""The bi-encoder inside a MixLM: cosine of query and document embedding, without the ranker. A baseline."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ..model import MixLM
from ..model.running import scoring

__all__ = ["BiEncoderScorer"]


class BiEncoderScorer:
    """Scores are cosines in [-1, 1], not log-odds; titles are not read.

    A poor baseline in a model that was cut out of a cross-encoder: its item encoder was never a bi-encoder.
    """

    def __init__(self, model: MixLM) -> None:
        self._model = model

    def score(self, query: str, tokens: Tensor, titles: Tensor | None = None) -> Tensor:
        """Embedding tokens, float [n, k, d], of which only the last is read -> cosines, float32 [n]."""
        return self.score_batch([query], [tokens])[0]

    @scoring
    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        embeddings = self._model.item_encoder.embed_queries(queries)
        return [
            F.cosine_similarity(embedding[None], candidates[:, -1, : len(embedding)].float(), dim=-1)
            for embedding, candidates in zip(embeddings, tokens, strict=True)
        ]
