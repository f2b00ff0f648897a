"""Where document texts come from when a document is not in the token index, or is to be read in full."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .index import Fetched, Quantiser, content_hash
from .index.builder import new_manifest
from .index.encoding import Reader
from .index.manifest import Manifest
from .types import Candidate, Document, Model, Texts

__all__ = ["NoIndex", "OnTheFly", "texts_of"]

KEPT_BYTES = 64 << 20
_kept: OrderedDict[tuple[str, Quantiser, bytes], NDArray[np.uint8]] = OrderedDict()  # the latest texts of this process


def texts_of(candidates: Sequence[Candidate], source: Texts | None) -> list[str | None]:
    """The text of each candidate: its own, else from ``source``; ``None`` where nobody has one."""
    wanted = list(dict.fromkeys(hit.docid for hit in candidates if hit.text is None))
    held: Mapping[str, str] = {}
    if wanted and source is not None:
        held = source(wanted) if callable(source) else {docid: source[docid] for docid in wanted if docid in source}
        if not isinstance(held, Mapping) or not all(isinstance(text, str) for text in held.values()):
            raise InputError(f"texts must give a text by docid, not {held!r:.80}")
    return [held.get(hit.docid) if hit.text is None else hit.text for hit in candidates]


class NoIndex:
    """A token store that holds nothing; what is encoded beside it is quantised as in an index by default."""

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


class OnTheFly:
    """Encodes texts now, as they would lie in the index (quantised alike), and keeps the latest by content hash.

    All rerankers of a process share what is kept: about 64 MB. Several threads may ask at once: what one has found,
    another may drop meanwhile.
    """

    def __init__(self, model: Model, manifest: Manifest) -> None:
        self._model = model
        self._quantiser = manifest.quantiser
        self._reader = Reader(model, passages=True) if manifest.passages else None
        self._fingerprint = model.fingerprint

    def __contains__(self, text: str) -> bool:
        return all(self._key(passage) in _kept for passage in self.passages(text))

    def passages(self, text: str) -> list[str]:
        """What is read of a text; in an index of passages several, else the text as it is."""
        if self._reader is None:
            return [text]
        return [passage for reading in self._reader.readings([Document("", text)]) for passage in reading.texts]

    def encode(self, texts: Sequence[str], tokens: int) -> NDArray[np.float32]:
        """Texts -> float32 [n, tokens, d]."""
        self._fingerprint = self._model.fingerprint  # the model may have been trained meanwhile
        keys = [self._key(text) for text in texts]
        held = {key: record for key in keys if (record := _kept.pop(key, None)) is not None}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in held}
        if new:
            packed = self._quantiser.pack(self._model.encode(list(new.values())))
            held.update(zip(new, map(np.copy, packed), strict=True))  # a row alone would keep its whole batch in memory
        _kept.update(held)
        while len(_kept) * self._quantiser.record_bytes > KEPT_BYTES:
            _kept.popitem(last=False)
        return self._quantiser.unpack(np.stack([held[key] for key in keys]), tokens)

    def _key(self, text: str) -> tuple[str, Quantiser, bytes]:
        return self._fingerprint, self._quantiser, content_hash(Document("", text))
