"""A saved tokenizer without Transformers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import InputError, optional_import

__all__ = ["LightTokenizer", "library"]


class LightTokenizer:
    """What templates use of a Transformers tokenizer, over a ``tokenizer.json``.

    Args:
        unknown: id of the unknown token, if there is one.
    """

    def __init__(self, path: Path, unknown: int | None) -> None:
        tokenizers = library("tokenizers")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises this very class
            raise InputError(f"{path} cannot be read: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.unk_token_id = unknown
        self.added_tokens_decoder = self._tokenizer.get_added_tokens_decoder()

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a part of a template; special tokens in it are read as such."""
        self._tokenizer.encode_special_tokens = False
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def __call__(
        self, texts: Sequence[str], *, add_special_tokens: bool, split_special_tokens: bool, **_: bool
    ) -> dict[str, list[Any]]:
        """``input_ids`` and ``offset_mapping`` of each text."""
        self._tokenizer.encode_special_tokens = split_special_tokens
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return {"input_ids": [one.ids for one in found], "offset_mapping": [one.offsets for one in found]}


def library(name: str, extra: str = "onnx") -> Any:
    """A library that an exported model needs. Raises MissingDependency, which names the extra, without it."""
    with optional_import(f"{name} is not installed, which ONNX models need", extra):
        return import_module(name)
