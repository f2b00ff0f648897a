"""Synthetic texts of an exact length in tokens: random whole words of a tokenizer's vocabulary."""

from __future__ import annotations

from random import Random

from transformers import PreTrainedTokenizerBase

from mixlm_rerank.errors import InputError
from mixlm_rerank.model.template import text_ids

__all__ = ["Words"]

LONG, ENOUGH = 3, 100  # words of three letters and more, where there are a hundred of them


class Words:
    """Words that are one token each, at the beginning of a text and after a blank: n of them are n tokens.

    Raises InputError for a tokenizer that has none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        special = set(tokenizer.all_special_tokens)
        pieces = [piece for piece in tokenizer.get_vocab() if piece not in special]
        words = {tokenizer.convert_tokens_to_string([piece]).strip() for piece in pieces}
        plain = sorted(word for word in words if word.isascii() and word.isalpha())
        twice = [f"{word} {word}" for word in plain]
        ours = text_ids(tokenizer, twice)  # special tokens in a text are plain characters; to others they are special
        theirs = tokenizer(twice, add_special_tokens=False)["input_ids"] if twice else []
        known = [word for word, *both in zip(plain, ours, theirs, strict=True) if [*map(len, both)] == [2, 2]]
        if not known:
            raise InputError(
                "no word of this tokenizer's vocabulary is one token: texts of a known length are not made"
            )
        long = [word for word in known if len(word) >= LONG]
        self._words = long if len(long) >= ENOUGH else known

    def text(self, tokens: int, draw: Random) -> str:
        """A text of exactly ``tokens`` tokens, special tokens not counted."""
        return " ".join(draw.choices(self._words, k=tokens))

    def texts(self, count: int, tokens: int, draw: Random) -> list[str]:
        return [self.text(tokens, draw) for _ in range(count)]
