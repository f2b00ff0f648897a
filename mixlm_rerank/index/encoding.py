"""Documents -> what is stored of them, in parts that are worth a commit each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..progress import Progress
from ..types import Document, Model
from .entries import Packed
from .manifest import Manifest
from .reading import Reader, Reading

__all__ = ["Encoder"]

RECORDS = 2048  # of a part at most (but for a document that has more): their tokens are in memory together
SECONDS = 30.0  # of a part, about: what an interruption costs
FIRST_TOKENS = 1024  # of the first part, by which the next one is measured


class Encoder:
    """Encodes documents for the index of ``manifest``."""

    def __init__(self, model: Model, manifest: Manifest) -> None:
        self.model = model
        self.manifest = manifest
        self.reader = Reader(model, passages=manifest.passages)
        self._tokens = FIRST_TOKENS

    def parts(self, documents: Sequence[Document], bar: Progress | None = None) -> Iterator[Packed]:
        """All documents in their order; a part takes about half a minute. ``bar`` counts documents."""
        part: list[tuple[Document, Reading]] = []
        records = tokens = 0
        for document, reading in self.reader.readings(documents):
            if part and (records + len(reading.texts) > RECORDS or tokens >= self._tokens):
                yield self._timed(part, tokens, bar)
                part, records, tokens = [], 0, 0
            part.append((document, reading))
            records, tokens = records + len(reading.texts), tokens + reading.tokens
        if part:
            yield self._timed(part, tokens, bar)

    def packed(self, part: Sequence[tuple[Document, Reading]], bar: Progress | None = None) -> Packed:
        """Documents encoded as they are read."""
        documents, readings = zip(*part, strict=True)
        counts, unread = [len(reading.texts) for reading in readings], [reading.unread for reading in readings]
        texts = [text for reading in readings for text in reading.texts]
        by_text = None if self.manifest.passages else bar
        titles = self._titles(documents).repeat(counts, axis=0)
        records = []
        for start in range(0, len(texts), RECORDS):
            rows = slice(start, start + RECORDS)
            records.append(self.manifest.quantiser.pack(self.model.encode(texts[rows], bar=by_text), titles[rows]))
        if bar is not None and self.manifest.passages:
            bar.update(len(part))
        titled = self.manifest.title_tokens > 0
        return Packed.of(documents, np.concatenate(records), counts, unread, titled=titled)

    def _titles(self, documents: Sequence[Document]) -> NDArray[np.int32]:
        """Token ids of titles, int32 [n, title_tokens]."""
        if not self.manifest.title_tokens:
            return np.empty((len(documents), 0), dtype=np.int32)
        ranker: Any = self.model.ranker  # not an ONNX one: these read no titles
        found: NDArray[np.int32] = ranker.titles([document.title for document in documents]).numpy()
        return found

    def _timed(self, part: Sequence[tuple[Document, Reading]], tokens: int, bar: Progress | None) -> Packed:
        started = time.monotonic()
        packed = self.packed(part, bar)
        self._tokens = int(SECONDS * tokens / max(time.monotonic() - started, 1e-6))
        return packed
