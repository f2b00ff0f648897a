"""The embedding tokens and texts of candidates: from the index, encoded on the fly, or read in full."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain, compress

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, MissingDocuments
from .index import Fetched, Quantiser, TokenStore, content_hash
from .index.builder import new_manifest
from .index.encoding import Reader
from .types import Candidate, Document, Missing, Model, Texts

__all__ = ["CandidateTokens", "NoIndex", "Stage"]

Stage = Callable[[str], AbstractContextManager[object]]

KEPT_BYTES = 64 << 20
_kept: OrderedDict[tuple[str, Quantiser, bytes], NDArray[np.uint8]] = OrderedDict()  # the latest texts of this process


class NoIndex:
    """A token store that holds nothing; texts encoded in its place are quantised as in an index by default."""

    def __init__(self, model: Model) -> None:
        self.manifest = new_manifest(model, "int8", "none")
        self._quantiser = self.manifest.quantiser

    def __str__(self) -> str:
        return "no index"

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """See :class:`TokenStore`."""
        nothing = np.empty((0, self._quantiser.record_bytes), dtype=np.uint8)
        counts = np.zeros(len(docids), dtype=np.int64)
        return Fetched(self._quantiser.unpack(nothing, tokens), counts, self._quantiser.titles(nothing))


class CandidateTokens:
    """Fetches the embedding tokens and texts of candidates. Its arguments are those of :class:`Reranker`.

    Texts that the index lacks are encoded, and quantised as in the index; the latest are cached by content hash. All
    rerankers of a process share this cache of about 64 MB. Several threads may use it at once: an entry that one thread
    has found may be dropped by another.
    """

    def __init__(self, model: Model, index: TokenStore) -> None:
        manifest = index.manifest
        self._model, self._index, self._quantiser = model, index, manifest.quantiser
        self._reader = Reader(model, passages=True) if manifest.passages else None
        self._fingerprint = model.fingerprint

    def fetch(
        self, candidates: Sequence[Candidate], missing: Missing, texts: Texts | None, tokens: int, stage: Stage
    ) -> Fetched:
        """Tokens from the index, and those of texts that it lacks, which have no title.

        Raises MissingDocuments, as :meth:`Reranker.rerank`.
        """
        with stage("index"):
            fetched = self._index.fetch([hit.docid for hit in candidates], tokens)
        lacking = list(compress(candidates, ~fetched.found))
        if not lacking or missing == "last":
            return fetched
        own = _texts_of(lacking, texts) if missing == "encode" else [None] * len(lacking)
        without = dict.fromkeys(hit.docid for hit, text in zip(lacking, own, strict=True) if text is None)
        if without:
            raise MissingDocuments(list(without), textless=missing == "encode")
        readable = self._model.item_encoder.readable([text or "" for text in own])
        passages = [
            self._passages(text) if text and has_words else [] for text, has_words in zip(own, readable, strict=True)
        ]
        if not any(passages):
            return fetched
        counts = fetched.counts.copy()
        counts[~fetched.found] = [len(each) for each in passages]
        both = np.empty((int(counts.sum()), *fetched.tokens.shape[1:]), dtype=np.float32)
        from_index = np.repeat(fetched.found, counts)
        both[from_index] = fetched.tokens
        with stage("encode"):
            both[~from_index] = self._encoded(list(chain(*passages)), tokens)
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
            if not found[place]
            and hit.text is not None
            and not all(self._key(passage) in _kept for passage in self._passages(hit.text))
        ]

    def full_texts(self, candidates: Sequence[Candidate], source: Texts | None) -> list[list[str]]:
        """The passages of each text; one, unless the index has passages. Raises InputError if a text is missing."""
        texts = _texts_of(candidates, source)
        for hit, text in zip(candidates, texts, strict=True):
            if text is None:
                raise InputError(f"no text of {hit.docid!r}, which is to be read in full: give texts that have it")
        return [self._passages(text) for text in texts if text is not None]

    def _passages(self, text: str) -> list[str]:
        """The passages of a text; the text as it is, unless the index has passages."""
        if self._reader is None:
            return [text]
        return [passage for reading in self._reader.readings([Document("", text)]) for passage in reading.texts]

    def _encoded(self, texts: Sequence[str], tokens: int) -> NDArray[np.float32]:
        """Texts -> float32 [n, tokens, d]."""
        self._fingerprint = self._model.fingerprint  # the model may have been trained meanwhile
        keys = [self._key(text) for text in texts]
        held = {key: record for key in keys if (record := _kept.pop(key, None)) is not None}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in held}
        if new:
            packed = self._quantiser.pack(self._model.encode(list(new.values())))
            held.update(zip(new, map(np.copy, packed), strict=True))  # a view would keep its whole batch in memory
        _kept.update(held)
        while len(_kept) * self._quantiser.record_bytes > KEPT_BYTES:
            _kept.popitem(last=False)
        return self._quantiser.unpack(np.stack([held[key] for key in keys]), tokens)

    def _key(self, text: str) -> tuple[str, Quantiser, bytes]:
        return self._fingerprint, self._quantiser, content_hash(Document("", text))


def _texts_of(candidates: Sequence[Candidate], source: Texts | None) -> list[str | None]:
    """The text of each candidate: its own, else from ``source``, else ``None``."""
    wanted = list(dict.fromkeys(hit.docid for hit in candidates if hit.text is None))
    held: Mapping[str, str] = {}
    if wanted and source is not None:
        held = source(wanted) if callable(source) else {docid: source[docid] for docid in wanted if docid in source}
        if not isinstance(held, Mapping) or not all(isinstance(text, str) for text in held.values()):
            raise InputError(f"texts must give a text by docid, not {held!r:.80}")
    return [held.get(hit.docid) if hit.text is None else hit.text for hit in candidates]
