"""What the item encoder reads: documents and queries in their templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..arguments import check_list_of_strings
from .config import MixLMConfig
from .template import Template, readable, text_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ItemTexts"]


class ItemTexts:
    """Texts -> token ids. Needs no PyTorch.

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
        """How many tokens of a document are read, besides template and prompt."""
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
        """Whether there is anything to read in each text, see :func:`.template.readable`."""
        return readable(self.tokenizer, texts)
