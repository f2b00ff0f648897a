"""Encode documents for an index: cut or split their texts to what the item encoder reads; encode a commit at a time."""

from __future__ import annotations

import logging
import re
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.template import text_ids, text_spans
from ..progress import Progress
from ..types import Document, Model
from .manifest import Manifest, Packed

__all__ = ["Encoder", "Reader", "Reading", "cut"]

RECORDS = 2048  # per part at most (unless one document has more): a part's tokens are in memory together
SECONDS = 30.0  # per part, approximately: the work that an interruption loses
FIRST_TOKENS = 1024  # in the first part, whose speed sets the size of the next one
AT_ONCE = 64  # texts tokenised together; a token with its offsets takes some hundred bytes
SLACK = 2  # a passage that is tokenised by itself may have a token or two more than as part of its text
SENTENCE_END, BLANK = re.compile(r"\n\s*|[.!?]+\s+|[。！？]+\s*"), re.compile(r"\s+")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """What the item encoder reads of a document."""

    document: Document
    texts: list[str]  # texts to encode, one record each: the document's, or its passages
    tokens: int  # how many of its tokens are read
    unread: int  # how many are cut off


class Reader:
    """Documents -> readings. Warns once if most of the tokens are the tokenizer's unknown token.

    ``passages``: a text that is too long is split. Otherwise it is cut.
    """

    def __init__(self, model: Model, *, passages: bool) -> None:
        self._passages = passages
        self._room = model.item_encoder.text_tokens
        self._tokenizer = model.item_encoder.tokenizer
        self._model_name, self._unknown = model.name, self._tokenizer.unk_token_id
        self._seen = self._not_known = 0

    def readings(self, documents: Sequence[Document]) -> Iterator[Reading]:
        for start in range(0, len(documents), AT_ONCE):
            group = documents[start : start + AT_ONCE]
            found = text_ids(self._tokenizer, [document.content for document in group])
            self._look_for_unknown(found)
            for document, ids in zip(group, found, strict=True):
                text, tokens = document.content, len(ids)
                if tokens <= self._room or not self._passages:
                    yield Reading(document, [text], min(tokens, self._room), max(0, tokens - self._room))
                else:
                    passages = cut(text, text_spans(self._tokenizer, text), max(1, self._room - SLACK))
                    yield Reading(document, passages, tokens, 0)

    def _look_for_unknown(self, found: Sequence[Sequence[int]]) -> None:
        if self._unknown is None:
            return
        self._seen += sum(map(len, found))
        self._not_known += sum(ids.count(self._unknown) for ids in found)
        if 2 * self._not_known > self._seen:
            _log.warning(
                "%.0f%% of the documents' tokens are unknown to the tokenizer of %s, which was made for another "
                "language: choose a model that knows it",
                100 * self._not_known / self._seen,
                self._model_name,
            )
            self._unknown = None


class Encoder:
    """Encodes documents for the index of ``manifest``."""

    def __init__(self, model: Model, manifest: Manifest) -> None:
        self.model = model
        self.manifest = manifest
        self.reader = Reader(model, passages=manifest.passages)
        self._tokens = FIRST_TOKENS

    def parts(self, documents: Sequence[Document], bar: Progress | None = None) -> Iterator[Packed]:
        """Encode all documents in order, in parts that take about half a minute each. ``bar`` counts documents."""
        part: list[Reading] = []
        records = tokens = 0
        for reading in chain(self.reader.readings(documents), [None]):  # None: the end
            if part and (reading is None or records + len(reading.texts) > RECORDS or tokens >= self._tokens):
                started = time.monotonic()
                packed = self.packed(part, bar)
                self._tokens = int(SECONDS * tokens / max(time.monotonic() - started, 1e-6))
                yield packed
                part, records, tokens = [], 0, 0
            if reading is not None:
                part.append(reading)
                records, tokens = records + len(reading.texts), tokens + reading.tokens

    def packed(self, part: Sequence[Reading], bar: Progress | None = None) -> Packed:
        """Encode the documents of a part."""
        documents, counts = [reading.document for reading in part], [len(reading.texts) for reading in part]
        texts = [text for reading in part for text in reading.texts]
        by_text = None if self.manifest.passages else bar
        titles: NDArray[np.int32] = np.empty((len(documents), 0), dtype=np.int32)
        if self.manifest.title_tokens:
            ranker: Any = self.model.ranker  # never an ONNX ranker: those read no titles
            titles = ranker.titles([document.title for document in documents]).numpy()
        titles = titles.repeat(counts, axis=0)
        records = []
        for start in range(0, len(texts), RECORDS):
            rows = slice(start, start + RECORDS)
            records.append(self.manifest.quantiser.pack(self.model.encode(texts[rows], bar=by_text), titles[rows]))
        if bar is not None and self.manifest.passages:
            bar.update(len(part))
        unread, titled = [reading.unread for reading in part], self.manifest.title_tokens > 0
        return Packed.of(documents, np.concatenate(records), counts, unread, titled=titled)


def cut(text: str, spans: Sequence[tuple[int, int]], size: int) -> list[str]:
    """Cut ``text`` into pieces of at most ``size`` tokens, about equally long, between sentences, else between words.

    ``spans``: for each token, the offset of its first character and that after its last.

    >>> cut("It is. A dog barks. So", [(0, 2), (3, 5), (5, 6), (7, 8), (9, 12), (13, 18), (18, 19), (20, 22)], 5)
    ['It is.', 'A dog barks. So']
    """
    ends = [end for _, end in spans]
    pieces, begin, start = [], 0, 0
    while (left := len(spans) - begin) > size:
        wanted = -(-left // -(-left // size))
        low, stop, high = (spans[begin + tokens][0] for tokens in (wanted // 2, wanted, size))
        stop = max(_stop(text, low, stop, high), ends[begin])  # do not split a character of many tokens
        pieces.append(text[start:stop].strip())
        start, begin = stop, bisect_right(ends, stop)
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if piece] or [text]


def _stop(text: str, low: int, wanted: int, high: int) -> int:
    """The end of a sentence, or else of a word, nearest to ``wanted`` between ``low`` and ``high``."""
    for pattern in (SENTENCE_END, BLANK):
        if places := [match.end() for match in pattern.finditer(text, low, high)]:
            return min(places, key=lambda place: abs(place - wanted))
    return wanted
