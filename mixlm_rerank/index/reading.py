"""What the item encoder reads of a document: its text, of which the end may be cut, or passages of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from ..model import MixLM
from ..model.template import without_lone_surrogates
from ..types import Document

__all__ = ["Reader", "Reading", "cut"]

CHARACTERS = 1 << 20  # of the texts that are tokenised at once
# A passage that is tokenised alone may have a token or two more than as part of its text.
SLACK = 2
SENTENCE_ENDS = ".!?。！？"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """Of one document.

    Attributes:
        texts: what is encoded, an embedding each: the document, or its passages.
        tokens: how many there are in ``texts``, less what is cut.
        unread: how many tokens are cut.
    """

    texts: list[str]
    tokens: int
    unread: int


class Reader:
    """Documents -> readings. Warns once if most of the tokens are the tokenizer's unknown token.

    ``passages``: a text that is too long is split; its title is repeated before each passage. Otherwise it is cut.
    """

    def __init__(self, model: MixLM, *, passages: bool) -> None:
        encoder = model.item_encoder
        self._passages = passages
        self._room = encoder.text_tokens
        self._tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())  # of its own: no lock
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # they are plain characters in a text
        self._model_name, self._unknown = model.name, encoder.tokenizer.unk_token_id
        self._seen = self._not_known = 0

    def readings(self, documents: Iterable[Document]) -> Iterator[tuple[Document, Reading]]:
        for group in _groups(documents):
            encodings = self._encodings([document.content for document in group])
            self._look_for_unknown(encodings)
            for document, encoding in zip(group, encodings, strict=True):
                yield document, self._reading(document, len(encoding))

    def _reading(self, document: Document, tokens: int) -> Reading:
        if tokens <= self._room or not self._passages:
            return Reading([document.content], min(tokens, self._room), max(0, tokens - self._room))
        head, text = f"{document.title}. " if document.title else "", document.text
        size = self._room - len(self._encodings([head])[0])
        if 2 * size < self._room:  # such a title is text
            head, text, size = "", document.content, self._room
        (encoding,) = self._encodings([text])
        return Reading([head + piece for piece in cut(text, encoding.offsets, max(1, size - SLACK))], tokens, 0)

    def _encodings(self, texts: Sequence[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch(list(map(without_lone_surrogates, texts)), add_special_tokens=False)

    def _look_for_unknown(self, encodings: Sequence[Encoding]) -> None:
        if self._unknown is None:
            return
        self._seen += sum(map(len, encodings))
        self._not_known += sum(encoding.ids.count(self._unknown) for encoding in encodings)
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
    pieces, start, begin = [], 0, 0
    while begin < len(spans):
        left = len(spans) - begin
        end = begin + -(-left // -(-left // size))
        if end < len(spans):
            end = _boundary(text, spans, begin, end, min(begin + size, len(spans) - 1))
        stop = spans[end][0] if end < len(spans) else len(text)
        pieces.append(text[start:stop].strip())
        start, begin = stop, end
    return [piece for piece in pieces if piece]


def _boundary(text: str, spans: Sequence[tuple[int, int]], begin: int, wanted: int, last: int) -> int:
    """The token up to ``last`` that begins a sentence, nearest to ``wanted``; else the word before it; else itself."""
    sentences, words = [], []
    for token in range(begin + (wanted - begin) // 2 + 1, last + 1):
        before = text[spans[token - 1][1] - 1 : spans[token - 1][1]]
        between = text[spans[token - 1][1] : spans[token][0] + 1]  # some tokens begin with their blank
        blank = any(map(str.isspace, between))
        if "\n" in between or (before in SENTENCE_ENDS and (blank or before > "\x7f")):
            sentences.append(token)
        elif blank and token <= wanted:
            words.append(token)
    if sentences:
        return min(sentences, key=lambda token: abs(token - wanted))
    return words[-1] if words else wanted


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Neighbours, together of few characters."""
    group: list[Document] = []
    characters = 0
    for document in documents:
        if group and characters + len(document.content) > CHARACTERS:
            yield group
            group, characters = [], 0
        group.append(document)
        characters += len(document.content)
    if group:
        yield group
