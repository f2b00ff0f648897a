"""Documents -> what is stored of them, in parts that are worth a commit each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from ..model import MixLM
from ..model.item_encoder import Progress
from ..types import Document
from .entries import Packed
from .manifest import Manifest
from .reading import Reader, Reading

__all__ = ["Encoder"]

RECORDS = 2048  # of a part at most: they are in memory together
SECONDS = 30.0  # of a part, about: what an interruption costs
FIRST_TOKENS = 1024  # of the first part, by which the next one is measured


class Encoder:
    """Encodes documents for the index of ``manifest``; ``reader`` is its way to read them."""

    def __init__(self, model: MixLM, manifest: Manifest, reader: Reader | None = None) -> None:
        self._model = model
        self._manifest = manifest
        self._reader = reader or Reader(model, passages=manifest.passages)
        self._tokens = FIRST_TOKENS

    def parts(self, documents: Iterable[Document], bar: Progress | None = None) -> Iterator[Packed]:
        """All documents in their order; a part takes about half a minute. ``bar`` counts documents."""
        part: list[tuple[Document, Reading]] = []
        records = tokens = 0
        for document, reading in self._reader.readings(documents):
            if part and (records + len(reading.texts) > RECORDS or tokens >= self._tokens):
                yield self._packed(part, tokens, bar)
                part, records, tokens = [], 0, 0
            part.append((document, reading))
            records, tokens = records + len(reading.texts), tokens + reading.tokens
        if part:
            yield self._packed(part, tokens, bar)

    def _packed(self, part: Sequence[tuple[Document, Reading]], tokens: int, bar: Progress | None) -> Packed:
        texts = [text for _, reading in part for text in reading.texts]
        started = time.monotonic()
        encoded = self._model.encode(texts, bar=bar if len(texts) == len(part) else None)
        self._tokens = int(SECONDS * tokens / max(time.monotonic() - started, 1e-6))
        if bar is not None and len(texts) > len(part):
            bar.update(len(part))
        documents, readings = zip(*part, strict=True)
        counts, unread = [len(reading.texts) for reading in readings], [reading.unread for reading in readings]
        return Packed.of(documents, self._manifest.quantiser.pack(encoded), counts, unread)
