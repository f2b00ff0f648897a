"""MixLM as a system: on embedding tokens at one budget, with the best read in full, and baselines made of its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from mixlm_rerank.errors import InputError
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fast.int8 import is_int8
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.scoring import BiEncoderScorer, FullTextScorer
from mixlm_rerank.systems.loading import Loading, fingerprint_of, load_cross_encoder, short_name
from mixlm_rerank.systems.protocol import Footprint, Kind, System, by_score
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Cascade", "Cosine", "FullTextMode", "OfMixLM", "TokenReranker"]


class OfMixLM(System):
    """A system made of a MixLM. ``seed`` names the model if several seeds of one recipe are evaluated."""

    def __init__(self, model: MixLM, name: str, seed: str | None) -> None:
        self.model = model
        self.name = name if seed is None else f"{name} [{seed}]"
        self.seed_group = None if seed is None else name
        settings = repr((model.config, model.fingerprint, model.ranker.dtype, model.device.type))
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        self.description = f"{type(self).__name__}: {model.name}, weights {weights_hash(model)}, settings {digest}"


class _FromIndex(OfMixLM):
    """Ranks from the token index, which lacks documents without text."""

    _options: dict[str, Any]  # arguments of the Reranker, including ``tokens``

    def prepare(self, work: Workplace) -> Footprint:
        index = work.index(self.model)
        self._reranker = Reranker(self.model, index, missing="last", **self._options)
        return _footprint(index, self._options["tokens"], work)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return self._reranker.rerank(query, candidates)


class TokenReranker(_FromIndex):
    """MixLM on embedding tokens at one token budget (None: the model's largest)."""

    kind: Kind = "MixLM"

    def __init__(self, model: MixLM, tokens: int | None = None, *, seed: str | None = None, below: str = "") -> None:
        self.tokens = model.config.check_budget(tokens)
        super().__init__(model, f"MixLM k={self.tokens}" + ", int8" * is_int8(model) + below, seed)
        self.description += f", k={self.tokens}"
        self._options = {"tokens": self.tokens}


class Cascade(TokenReranker):
    """MixLM, then the best ``verify_top`` read in full: by the same ranker, or by a cross-encoder (name or folder)."""

    kind = "combination"
    pointwise = False

    def __init__(
        self,
        model: MixLM,
        verify_top: int,
        tokens: int | None = None,
        *,
        cross_encoder: str | None = None,
        max_length: int | None = None,
        loading: Loading = Loading(),
        seed: str | None = None,
    ) -> None:
        if verify_top < 1:
            raise InputError(f"verify_top must be at least 1, not {verify_top}")
        reader = "in full" if cross_encoder is None else f"by {short_name(cross_encoder)}"
        reader += "" if max_length is None else f" at {max_length} tokens"
        super().__init__(model, tokens, seed=seed, below=f", best {verify_top} {reader}")
        self.description += f", verify_top {verify_top}"
        self._options["verify_top"] = verify_top
        if cross_encoder is not None:
            self._options["verify_with"] = load_cross_encoder(cross_encoder, max_length, loading)
            self.description += f" {reader}, {fingerprint_of(self._options['verify_with'])[:16]}"


class Cosine(_FromIndex):
    """Cosine of query and document embedding: the MixLM's item encoder as a plain bi-encoder."""

    kind = "bi-encoder"

    def __init__(self, model: MixLM, *, seed: str | None = None) -> None:
        super().__init__(model, "cosine", seed)
        self._options = {"tokens": 1, "scorer": BiEncoderScorer(model)}


class FullTextMode(OfMixLM):
    """The same ranker reading every document's text: the same-backbone cross-encoder."""

    kind = "full text"

    def __init__(self, model: MixLM, *, seed: str | None = None) -> None:
        super().__init__(model, "full-text mode", seed)
        self._scorer = FullTextScorer(model)
        self._tokens = model.config.tokens if model.config.residual == "late" else 1
        self.description += f", residual of {self._tokens}"

    def prepare(self, work: Workplace) -> Footprint | None:
        """The residual needs the embedding tokens, which lie in the token index."""
        work.collection.documents("full text")
        self._index = work.index(self.model) if self.model.config.residual != "none" else None
        return None if self._index is None else _footprint(self._index, self._tokens, work)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        tokens = None
        if self._index is not None:
            fetched = self._index.fetch([hit.docid for hit in candidates], self._tokens)
            tokens = torch.from_numpy(fetched.tokens) if fetched.found.all() else None
        return by_score(candidates, self._scorer.score(query, [hit.text or "" for hit in candidates], tokens))


def _footprint(index: TokenIndex, tokens: int, work: Workplace) -> Footprint:
    """Footprint of a system that reads ``tokens`` embedding tokens of each document."""
    info = index.info()
    return Footprint(info.bytes_per_document * tokens / info.manifest.tokens, work.build_seconds(index))
