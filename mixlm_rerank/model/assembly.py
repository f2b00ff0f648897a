"""Putting the parts of a MixLM together, whether they are new or were saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..errors import InputError
from .config import MixLMConfig
from .families import Family
from .item_encoder import ItemEncoder
from .mixlm import MixLM
from .probe import check_ranker
from .ranker import Ranker

__all__ = ["assemble", "load_tokenizer", "quiet"]


def assemble(
    config: MixLMConfig,
    encoder: PreTrainedModel,
    encoder_tokenizer: PreTrainedTokenizerBase,
    backbone: PreTrainedModel,
    ranker_tokenizer: PreTrainedTokenizerBase,
    family: Family,
) -> MixLM:
    """A MixLM in float32; its ranker has passed the probe. Raises InputError if the parts do not make one."""
    item_encoder = ItemEncoder(encoder.float(), encoder_tokenizer, config)
    ranker = Ranker(backbone.float(), ranker_tokenizer, config, family)
    check_ranker(ranker, config.tokens)
    projector = None
    if item_encoder.hidden_size != ranker.hidden_size:
        projector = nn.Linear(item_encoder.hidden_size, ranker.hidden_size)
    return MixLM(config, item_encoder, ranker, projector)


def load_tokenizer(source: str, **options: Any) -> PreTrainedTokenizerBase:
    """Raises InputError if there is none, or no fast one."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{source!r} has no tokenizer that can be read here: {error}") from None
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {source!r} has no fast version (tokenizer.json)")
    return tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """No loading bars and no report of unused heads: loading a backbone without its head is what we want."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
