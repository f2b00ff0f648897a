"""In place of an item encoder, where documents are given as vectors of the user's own: of images, audio, products."""

from __future__ import annotations

from typing import NoReturn

from torch import nn
from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from .config import MixLMConfig
from .item_encoder import ItemEncoder

__all__ = ["GivenVectors"]


class GivenVectors(ItemEncoder):
    """The shape of an item encoder without its weights: the projector, which is trained with the ranker, reads vectors.

    Raises InputError where a text is to be encoded.
    """

    text_tokens = 0

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: MixLMConfig) -> None:
        """``tokenizer``: the ranker's, which cuts queries."""
        nn.Module.__init__(self)
        self.tokenizer, self.config = tokenizer, config
        self.hidden_size = config.vectors

    def _refuse(self, *arguments: object, **options: object) -> NoReturn:
        raise InputError(
            f"this model encodes no texts: its documents are vectors of {self.hidden_size} numbers, which must be in "
            "the index (mixlm-rerank index import FILE INDEX --model MODEL)"
        )

    readable = document_ids = query_ids = encode = query_states = _refuse
