"""The embedding tokens of candidates: from the index, or of texts that are encoded now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import compress

import numpy as np

from .errors import InputError, MissingDocuments
from .index import Fetched, TokenStore
from .texts import OnTheFly, texts_of
from .types import Candidate, Missing, Model, Texts

__all__ = ["CandidateTokens", "Stage"]

Stage = Callable[[str], AbstractContextManager[object]]


class CandidateTokens:
    """Fetches them. Arguments, here and of the methods, are those of :class:`Reranker`."""

    def __init__(self, model: Model, index: TokenStore) -> None:
        self._model, self._index, self._on_the_fly = model, index, OnTheFly(model, index.manifest)

    def fetch(
        self, candidates: Sequence[Candidate], missing: Missing, texts: Texts | None, tokens: int, stage: Stage
    ) -> Fetched:
        """Of the index, and of texts that it lacks, which have no title.

        Raises MissingDocuments, as :meth:`Reranker.rerank`.
        """
        with stage("index"):
            fetched = self._index.fetch([hit.docid for hit in candidates], tokens)
        lacking = list(compress(candidates, ~fetched.found))
        if not lacking or missing == "last":
            return fetched
        own = texts_of(lacking, texts) if missing == "encode" else [None] * len(lacking)
        without = dict.fromkeys(hit.docid for hit, text in zip(lacking, own, strict=True) if text is None)
        if without:
            raise MissingDocuments(list(without), textless=missing == "encode")
        readable = self._model.item_encoder.readable([text or "" for text in own])
        passages = [
            self._on_the_fly.passages(text) if text and has_words else []
            for text, has_words in zip(own, readable, strict=True)
        ]
        encoded = [passage for each in passages for passage in each]
        if not encoded:
            return fetched
        counts = fetched.counts.copy()
        counts[~fetched.found] = [len(each) for each in passages]
        both = np.empty((int(counts.sum()), *fetched.tokens.shape[1:]), dtype=np.float32)
        from_index = np.repeat(fetched.found, counts)
        both[from_index] = fetched.tokens
        with stage("encode"):
            both[~from_index] = self._on_the_fly.encode(encoded, tokens)
        titles = None
        if fetched.titles is not None:
            titles = np.full((len(both), fetched.titles.shape[1]), -1, dtype=np.int32)
            titles[from_index] = fetched.titles
        return Fetched(both, counts, titles)

    def unread(self, candidates: Sequence[Candidate]) -> list[int]:
        """Places of candidates whose own text is neither in the index nor among the latest texts."""
        found = self._index.fetch([hit.docid for hit in candidates], 1).found
        return [
            place
            for place, hit in enumerate(candidates)
            if not found[place] and hit.text is not None and hit.text not in self._on_the_fly
        ]

    def full_texts(self, candidates: Sequence[Candidate], source: Texts | None) -> list[list[str]]:
        """The text of each in passages; in an index without passages, one. Raises InputError where there is none."""
        texts = texts_of(candidates, source)
        for hit, text in zip(candidates, texts, strict=True):
            if text is None:
                raise InputError(f"no text of {hit.docid!r}, which is to be read in full: give texts that have it")
        return [self._on_the_fly.passages(text) for text in texts if text is not None]
