"""Text to token ids through a template in which only the ``{text}`` span is ever truncated. Needs no PyTorch."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..arguments import check_list_of_strings, check_strings
from ..errors import InputError
from .config import MixLMConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ItemTexts", "Template", "around_texts", "following_ids", "plain_end", "prefix_template", "readable"]
__all__ += ["special_ids", "text_ids", "text_spans", "has_content", "without_lone_surrogates"]

_TOKENISING = Lock()  # a call sets the tokenizer's options, and fails while another thread uses it
# a child that was forked while the lock was held could never acquire it
os.register_at_fork(before=_TOKENISING.acquire, after_in_parent=_TOKENISING.release, after_in_child=_TOKENISING.release)
_ASCII_WORD = re.compile("[0-9A-Za-z]")
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # blank, though Unicode calls them letters or symbols


class Template:
    """``before{text}after``, tokenised in pieces so that a long text cannot push the template out.

    Special tokens are spelled out in the template (``"[CLS]{text}[SEP]"``). In a text the same strings are read as
    plain characters, so no document can close the prompt.

    Args:
        joined: tokenise plain characters of the template together with the text that they touch, like callers who make
            one string of both: a tokenizer may merge ``": "`` and ``"what"``, or ``"?"`` and a new line.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str, max_tokens: int, *, joined: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens  # of the longest sequence that ids() returns
        before, after = template.split("{text}")
        self._around = (plain_end(tokenizer, before), _plain(tokenizer, after)[0]) if joined else ("", "")
        start, end = before[: len(before) - len(self._around[0])], after[len(self._around[1]) :]
        self._before = special_ids(tokenizer, start) + context_ids(tokenizer, self._around[0])
        self._after = special_ids(tokenizer, end)
        self._room = max_tokens - len(self._before) - len(self._after)
        self.room = self._room - len(text_ids(tokenizer, [self._around[1]])[0])  # tokens of a text that are read
        if self.room < 1:
            raise InputError(f"max_tokens={max_tokens} leaves no room for text in the template {template!r}")

    @property
    def before(self) -> int:
        """How many tokens stand before the text."""
        return len(self._before)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text in its template; a text that is too long is truncated at the end."""
        return [
            self._before + (ids if len(ids) <= self._room else self._cut(text, ids)) + self._after
            for text, ids in zip(texts, following_ids(self._tokenizer, texts, *self._around), strict=True)
        ]

    def _cut(self, text: str, ids: list[int]) -> list[int]:
        """Token ids of the text, truncated at its end, with the template characters joined to it."""
        if not self._around[1]:
            return ids[: self._room]
        ends = [end for _, end in text_spans(self._tokenizer, text)[: self.room]]
        while len(ids) > self._room and ends:
            (ids,) = following_ids(self._tokenizer, [text[: ends.pop()]], *self._around)
        return ids if len(ids) <= self._room else text_ids(self._tokenizer, [self._around[1]])[0]


class ItemTexts:
    """What the item encoder reads: documents and queries in their templates, as token ids.

    Args:
        query_tokens: the longest query with its template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: MixLMConfig, query_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._document = Template(tokenizer, config.template, config.max_document_tokens, joined=config.mix_layer > 0)
        self._query = Template(tokenizer, config.template, query_tokens)

    @property
    def text_tokens(self) -> int:
        """How many tokens of a document are read, not counting template and prompt."""
        return self._document.room - len(text_ids(self.tokenizer, [self.config.document_prompt])[0])

    @property
    def query_tokens(self) -> int:
        """The longest query with its template."""
        return self._query.max_tokens

    def document_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of documents in their template, truncated to ``max_document_tokens``."""
        check_list_of_strings("texts", texts)
        return self._document.ids([self.config.document_prompt + text for text in texts])

    def query_ids(self, queries: Sequence[str]) -> list[list[int]]:
        """Token ids of queries in the template."""
        check_list_of_strings("queries", queries)
        return self._query.ids([self.config.query_prompt + query for query in queries])

    def readable(self, texts: Sequence[str]) -> list[bool]:
        """Whether there is anything to read in each text, see :func:`readable`."""
        return readable(self.tokenizer, texts)


def prefix_template(tokenizer: PreTrainedTokenizerBase, config: MixLMConfig) -> Template:
    """The template of what the ranker reads before the document, query included."""
    joined = "{document}" in config.prompt
    prefix = config.prefix.rstrip(" ") if joined else config.prefix  # a space goes with the document
    return Template(tokenizer, prefix, config.max_query_tokens, joined=joined)


def around_texts(tokenizer: PreTrainedTokenizerBase, count: int) -> list[str]:
    """What the tokenizer itself puts before, between and after texts: ``["[CLS]", "[SEP]", "[SEP]"]`` (BERT, two)."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer(*["a"] * count)["input_ids"]
    parts, start = [], 0
    for _ in range(count):
        place = next(place for place in range(start, len(whole)) if whole[place : place + len(plain)] == plain)
        parts.append(whole[start:place])
        start = place + len(plain)
    return ["".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (*parts, whole[start:])]


def special_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> list[int]:
    """Token ids of a part of a template, in which special tokens are spelled out."""
    return tokenizer.encode(template, add_special_tokens=False) if template else []


def plain_end(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The plain characters after the last special token in a part of a template."""
    return _plain(tokenizer, template)[-1]


def _plain(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """The plain characters before, between and after the special tokens in a part of a template."""
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.split("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)", template)


def context_ids(tokenizer: PreTrainedTokenizerBase, before: str) -> list[int]:
    """Token ids of the plain characters before a text. Trailing spaces go with the text: ``" what"`` is a token."""
    return text_ids(tokenizer, [before.rstrip(" ")])[0]


def following_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], before: str, after: str = ""
) -> list[list[int]]:
    """Token ids of plain texts, each with ``after`` at its end, tokenised as one string with ``before``.

    The ids of ``before``, which :func:`context_ids` gives, are left out.
    """
    check_strings("texts", texts)
    context = context_ids(tokenizer, before)
    space = before[len(before.rstrip(" ")) :]
    found = text_ids(tokenizer, [before + text + after for text in texts])
    return [
        ids[len(context) :]
        if ids[: len(context)] == context
        else text_ids(tokenizer, [space + text + after])[0]  # the text merges with more than a space
        for text, ids in zip(texts, found, strict=True)
    ]


def text_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of plain texts, without template; special tokens in them count as plain characters."""
    check_strings("texts", texts)
    ids: list[list[int]] = _tokenised(tokenizer, texts)["input_ids"] if texts else []
    return ids


def text_spans(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    """Character spans of the tokens of :func:`text_ids`: the first character of each, and the one after its last."""
    spans: list[tuple[int, int]] = _tokenised(tokenizer, [text], return_offsets_mapping=True)["offset_mapping"][0]
    return spans


def _tokenised(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **options: bool) -> Any:
    with _TOKENISING:
        return tokenizer(
            [without_lone_surrogates(text) for text in texts],
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )


def readable(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[bool]:
    """Whether each text gives the model anything to read: a visible character, and a token that is not the unknown one.

    All other texts look the same to the model (``[CLS][SEP]``, or only unknown tokens), and their scores mean nothing.
    ASCII letters and digits count without being tokenised.
    """
    check_strings("texts", texts)
    found = [_ASCII_WORD.search(text) is not None for text in texts]
    doubtful = [place for place, text in enumerate(texts) if not found[place] and has_content(text)]
    for place, ids in zip(doubtful, text_ids(tokenizer, [texts[place] for place in doubtful]), strict=True):
        found[place] = any(token != tokenizer.unk_token_id for token in ids)
    return found


def has_content(text: str) -> bool:
    """Whether a text holds more than white space, control and format characters, marks and unassigned code points."""
    return any(unicodedata.category(one)[0] not in "CMZ" and one not in _FILLERS for one in text)


def without_lone_surrogates(text: str) -> str:
    """Text as tokenizers accept it. JSON can hold half a surrogate pair (``"\\ud83d"``), UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
