"""The systems that an evaluation compares. Each ranks the candidates of one query; a new one is one small class."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from mixlm_rerank.errors import InputError, MissingDependency
from mixlm_rerank.eval.results import Kind
from mixlm_rerank.eval.workplace import Workplace
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.ranking import ranked
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.scoring import BiEncoderScorer, FullTextScorer
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["BiEncoder", "Cascade", "CrossEncoder", "FullTextMode", "Interpolated", "System", "TokenReranker"]


class System(Protocol):
    """What the harness needs of a system.

    Attributes:
        name: short, for tables; unique within an evaluation.
        kind: for colours and words of the report.
        tokens: the token budget, or None.
        pointwise: whether a document's score depends on no other candidate; then its depth curve needs no new run.
    """

    name: str
    kind: Kind
    tokens: int | None
    pointwise: bool

    @property
    def description(self) -> str:
        """Exactly what it is. A ranking is made anew where this has changed."""
        ...

    def prepare(self, work: Workplace) -> None:
        """Get ready for one collection: open indexes, say."""
        ...

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        """All candidates, best first. They carry their texts."""
        ...


class TokenReranker:
    """MixLM from embedding tokens, at one budget."""

    kind: Kind = "MixLM"
    pointwise = True

    def __init__(self, model: MixLM, tokens: int | None = None, name: str | None = None) -> None:
        self.model = model
        self.tokens: int | None = model.config.check_budget(tokens)
        self.name = name or f"MixLM k={self.tokens}"
        self._weights = weights_hash(model)

    @property
    def description(self) -> str:
        return f"{type(self).__name__}: {self.model.name}, weights {self._weights}, k={self.tokens}"

    def prepare(self, work: Workplace) -> None:
        self._reranker = Reranker(self.model, work.index(self.model), missing="encode", **self._options())

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return self._reranker.rerank(query, candidates)

    def _options(self) -> dict[str, Any]:
        return {"tokens": self.tokens}


class BiEncoder(TokenReranker):
    """Cosine of query and document embedding: the item encoder alone."""

    kind: Kind = "bi-encoder"

    def __init__(self, model: MixLM, name: str = "cosine") -> None:
        super().__init__(model, 1, name)

    def _options(self) -> dict[str, Any]:
        return {"tokens": 1, "scorer": BiEncoderScorer(self.model)}


class Interpolated(TokenReranker):
    """``(1 - weight) * MixLM + weight * first stage``, both scaled to [0, 1] within the query."""

    kind: Kind = "combination"
    pointwise = False

    def __init__(self, model: MixLM, weight: float, tokens: int | None = None) -> None:
        super().__init__(model, tokens)
        self.weight = weight
        self.name = f"{self.name} + {weight:g} first stage"

    @property
    def description(self) -> str:
        return f"{super().description}; first-stage weight {self.weight:g}"

    def _options(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "first_stage_weight": self.weight}


class Cascade(TokenReranker):
    """MixLM, then the best ``verify_top`` read in full by the same ranker."""

    kind: Kind = "combination"
    pointwise = False

    def __init__(self, model: MixLM, verify_top: int, tokens: int | None = None) -> None:
        super().__init__(model, tokens)
        self.verify_top = verify_top
        self.name = f"{self.name}, best {verify_top} in full"

    @property
    def description(self) -> str:
        return f"{super().description}; verify_top {self.verify_top}"

    def _options(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "verify_top": self.verify_top}


class FullTextMode:
    """The same ranker reading every document's text: the same-backbone cross-encoder."""

    kind: Kind = "full text"
    tokens: int | None = None
    pointwise = True

    def __init__(self, model: MixLM, name: str = "full-text mode") -> None:
        self.model = model
        self.name = name
        self._weights = weights_hash(model)
        self._scorer = FullTextScorer(model)

    @property
    def description(self) -> str:
        return f"FullTextMode: {self.model.name}, weights {self._weights}"

    def prepare(self, work: Workplace) -> None:
        self._index = work.index(self.model) if self.model.config.residual else None

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        tokens = None
        if self._index is not None:
            fetched = self._index.fetch([hit.docid for hit in candidates], 1)
            tokens = torch.from_numpy(fetched.tokens) if fetched.found.all() else None
        return _by_score(candidates, self._scorer.score(query, [hit.text or "" for hit in candidates], tokens).numpy())


class CrossEncoder:
    """Any sentence-transformers CrossEncoder (folder or hub id) on full text, or on its first ``max_length`` tokens."""

    kind: Kind = "full text"
    tokens: int | None = None
    pointwise = True

    def __init__(self, source: str, max_length: int | None = None, name: str | None = None) -> None:
        try:
            peer = importlib.import_module("sentence_transformers")
        except ImportError:
            raise MissingDependency(
                'a cross-encoder needs sentence-transformers: pip install "mixlm-rerank[eval]"'
            ) from None
        try:
            self._model = peer.CrossEncoder(source, max_length=max_length)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{source!r} is not a cross-encoder that can be read here: {reason}") from None
        self._source, self._length = source, max_length
        short = source.rstrip("/").rpartition("/")[2]
        self.name = name or (short if max_length is None else f"{short}, {max_length} tokens")

    @property
    def description(self) -> str:
        return f"CrossEncoder: {self._source}, max_length {self._length}"

    def prepare(self, work: Workplace) -> None:
        """Nothing to prepare."""

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        if not candidates:
            return []
        pairs = [(query, hit.text or "") for hit in candidates]
        # raw scores: a sigmoid in float32 makes ties of the best
        scores = self._model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return _by_score(candidates, np.asarray(scores, dtype=np.float64))


def _by_score(candidates: Sequence[Candidate], scores: Any) -> list[ScoredDoc]:
    return ranked(candidates, np.ones(len(candidates), dtype=bool), np.asarray(scores, dtype=np.float64))
