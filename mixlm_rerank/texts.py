"""Where document texts come from when a document is not in the token index, or is to be read in full."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .index import Fetched, Quantiser, content_hash
from .index.builder import new_manifest
from .model import MixLM
from .types import Candidate, Document, Texts

__all__ = ["NoIndex", "OnTheFly", "texts_of"]

CACHED_DOCUMENTS = 4096


def texts_of(candidates: Sequence[Candidate], source: Texts | None) -> dict[str, str]:
    """Texts of candidates: their own, else from ``source``; those that nobody has a text for are left out."""
    found = {hit.docid: hit.text for hit in candidates if hit.text is not None}
    wanted = [hit.docid for hit in candidates if hit.docid not in found]
    if wanted and source is not None:
        held = source(wanted) if callable(source) else {docid: source[docid] for docid in wanted if docid in source}
        found.update({docid: text for docid, text in held.items() if text is not None})
    return found


class NoIndex:
    """A token store that holds nothing; what is encoded beside it is quantised as in an index by default."""

    def __init__(self, model: MixLM) -> None:
        self._quantiser = Quantiser("int8", model.config.tokens, model.item_encoder.hidden_size)
        self.manifest = new_manifest(model, self._quantiser, "none")

    def __str__(self) -> str:
        return "no index"

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """See :class:`TokenStore`."""
        nothing = np.empty((0, self._quantiser.record_bytes), dtype=np.uint8)
        return Fetched(self._quantiser.unpack(nothing, tokens), np.zeros(len(docids), dtype=bool))


class OnTheFly:
    """Encodes texts now, as they would lie in the index (quantised alike), and keeps the latest by content hash."""

    def __init__(self, model: MixLM, quantiser: Quantiser) -> None:
        self._model = model
        self._quantiser = quantiser
        self._cache: OrderedDict[bytes, NDArray[np.uint8]] = OrderedDict()

    def encode(self, texts: Sequence[str], tokens: int) -> NDArray[np.float32]:
        """Texts -> float32 [n, tokens, d]."""
        keys = [content_hash(Document("", text)) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._cache}
        if new:
            records = self._quantiser.pack(self._model.encode(list(new.values())))
            self._cache.update(zip(new, records, strict=True))
        for key in keys:
            self._cache.move_to_end(key)
        records = np.stack([self._cache[key] for key in keys])
        while len(self._cache) > CACHED_DOCUMENTS:
            self._cache.popitem(last=False)
        return self._quantiser.unpack(records, tokens)
