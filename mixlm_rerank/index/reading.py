"""What the item encoder reads of a text: its beginning, or all of it in passages."""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..model.template import text_ids, text_spans
from ..types import Document, Model

__all__ = ["Reader", "Reading", "cut"]

AT_ONCE = 64  # texts; tokens with their places take some hundred bytes each
SLACK = 2  # a passage that is tokenised alone may have a token or two more than as a part of its text
SENTENCE_END, BLANK = re.compile(r"\n\s*|[.!?]+\s+|[。！？]+\s*"), re.compile(r"\s+")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """Of one document.

    Attributes:
        texts: what is encoded, a record each: the document, or its passages.
        tokens: how many of its tokens are read.
        unread: how many are cut off.
    """

    texts: list[str]
    tokens: int
    unread: int


class Reader:
    """Documents -> readings. Warns once if most of the tokens are the tokenizer's unknown token.

    ``passages``: a text that is too long is split. Otherwise it loses its end.
    """

    def __init__(self, model: Model, *, passages: bool) -> None:
        self._passages = passages
        self._room = model.item_encoder.text_tokens
        self._tokenizer = model.item_encoder.tokenizer
        self._model_name, self._unknown = model.name, self._tokenizer.unk_token_id
        self._seen = self._not_known = 0

    def readings(self, documents: Sequence[Document]) -> Iterator[tuple[Document, Reading]]:
        for start in range(0, len(documents), AT_ONCE):
            group = documents[start : start + AT_ONCE]
            found = text_ids(self._tokenizer, [document.content for document in group])
            self._look_for_unknown(found)
            for document, ids in zip(group, found, strict=True):
                yield document, self._reading(document.content, len(ids))

    def _reading(self, text: str, tokens: int) -> Reading:
        if tokens <= self._room or not self._passages:
            return Reading([text], min(tokens, self._room), max(0, tokens - self._room))
        return Reading(cut(text, text_spans(self._tokenizer, text), max(1, self._room - SLACK)), tokens, 0)

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


def cut(text: str, spans: Sequence[tuple[int, int]], size: int) -> list[str]:
    """``text`` in pieces of at most ``size`` tokens, about equally long, cut between sentences, else between words.

    ``spans``: first character of each token, and the one after its last.

    >>> cut("It is. A dog barks. So", [(0, 2), (3, 5), (5, 6), (7, 8), (9, 12), (13, 18), (18, 19), (20, 22)], 5)
    ['It is.', 'A dog barks. So']
    """
    ends = [end for _, end in spans]
    pieces, begin, start = [], 0, 0
    while (left := len(spans) - begin) > size:
        wanted = -(-left // -(-left // size))
        low, stop, high = (spans[begin + tokens][0] for tokens in (wanted // 2, wanted, size))
        stop = max(_stop(text, low, stop, high), ends[begin])  # a character of many tokens is not split
        pieces.append(text[start:stop].strip())
        start, begin = stop, bisect_right(ends, stop)
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if piece] or [text]


def _stop(text: str, low: int, wanted: int, high: int) -> int:
    """Where a sentence or else a word ends, between ``low`` and ``high``, nearest to ``wanted``."""
    for pattern in (SENTENCE_END, BLANK):
        if places := [match.end() for match in pattern.finditer(text, low, high)]:
            return min(places, key=lambda place: abs(place - wanted))
    return wanted
