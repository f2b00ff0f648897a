"""Late interaction over a bi-encoder's token states, and BM25: the teacher of the shipped recipe, as a system."""

from __future__ import annotations

from collections.abc import Sequence

from mixlm_rerank.eval.hybrid import HybridTeacher, HybridWeights
from mixlm_rerank.eval.loading import Loading
from mixlm_rerank.eval.results import Kind
from mixlm_rerank.eval.systems.protocol import by_score
from mixlm_rerank.eval.workplace import Workplace
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Hybrid"]


class Hybrid:
    """:class:`HybridTeacher` with its default weights; BM25's statistics are those of the collection.

    Raises InputError if the checkpoint cannot be loaded.
    """

    kind: Kind = "full text"
    tokens: int | None = None
    seed_group: str | None = None
    pointwise = True

    def __init__(self, source: str, loading: Loading = Loading(), weights: HybridWeights = HybridWeights()) -> None:
        model = MixLM.from_backbones(source, source, tokens=1, local_files_only=loading.offline)
        self._encoder = model.item_encoder.eval().to(loading.device_name())
        self._weights = weights
        self.name = "hybrid teacher"
        self.description = f"hybrid: {source}, {weights_hash(self._encoder)}, {weights}"

    def prepare(self, work: Workplace) -> None:
        corpus = work.documents("the hybrid teacher")
        texts = [document.content for document in corpus if document.content.strip()]
        self._teacher = HybridTeacher(self._encoder, texts, self._weights, work.folder)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return by_score(candidates, self._teacher.score(query, [hit.text or "" for hit in candidates]))
