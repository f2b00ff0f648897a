"""Putting the parts of a MixLM together, whether they are new or were saved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..errors import InputError
from .config import MixLMConfig
from .families import Family, reason
from .fast.ranker import FastRanker
from .item_encoder import GivenVectors, ItemEncoder
from .network import Network
from .probe import TESTED, check_item_encoder, check_ranker, check_vocabulary
from .template import special_ids

__all__ = ["N", "assemble", "assemble_encoder", "load_tokenizer", "quiet"]

N = TypeVar("N", bound=Network)  # what is made: a MixLM


def assemble(
    make: type[N],
    config: MixLMConfig,
    encoder: PreTrainedModel | None,
    encoder_tokenizer: PreTrainedTokenizerBase | None,
    backbone: PreTrainedModel,
    ranker_tokenizer: PreTrainedTokenizerBase,
    family: Family,
) -> N:
    """A MixLM in float32; its parts have passed the probe. Without ``encoder``, documents are vectors.

    Raises InputError if the parts do not make one.
    """
    _survive_forks()
    if encoder is None or encoder_tokenizer is None:
        item_encoder: ItemEncoder = GivenVectors(ranker_tokenizer, config)
    else:
        item_encoder = assemble_encoder(config, encoder, encoder_tokenizer)
    with _usable_as("a ranker", backbone):
        check_vocabulary(backbone, ranker_tokenizer, config.prompt, config.suffix)
        if "{document}" not in config.prompt and len(special_ids(ranker_tokenizer, config.score_token)) != 1:
            raise InputError(f"its tokenizer has no token {config.score_token!r}, the score_token: name one of its own")
        ranker = FastRanker(backbone.float(), ranker_tokenizer, config, family)
        check_ranker(ranker, config.tokens)
    projector = None
    if config.vectors or item_encoder.hidden_size != ranker.hidden_size:
        projector = nn.Linear(item_encoder.hidden_size, ranker.hidden_size, dtype=torch.float32)
    return make(config, item_encoder, ranker, projector)


def assemble_encoder(config: MixLMConfig, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> ItemEncoder:
    """The item encoder alone, likewise."""
    with _usable_as("an item encoder", backbone):
        check_vocabulary(backbone, tokenizer, config.template)
        encoder = ItemEncoder(backbone.float(), tokenizer, config)
        check_item_encoder(encoder)
    return encoder


@cache
def _survive_forks() -> None:
    """Children that are forked from now on compute with one thread each.

    OpenMP's other threads are not forked, and a child would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@contextmanager
def _usable_as(part: str, backbone: PreTrainedModel) -> Iterator[None]:
    """Raises InputError for whatever goes wrong: architectures differ in more ways than can be asked for."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{type(backbone).__name__} cannot be {part}: {error}") from None
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise InputError(f"{type(backbone).__name__} cannot be {part} ({reason(error)}); {TESTED}") from None


def load_tokenizer(source: str, **options: Any) -> PreTrainedTokenizerBase:
    """Raises InputError if there is none, or no fast one."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # a torn tokenizer.json raises a plain one
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
