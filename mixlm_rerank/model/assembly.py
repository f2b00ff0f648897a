"""Assemble a MixLM from new or saved parts, after checking that they compute what MixLM needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from .config import MixLMConfig
from .fast.ranker import FastRanker
from .hub import reason
from .item_encoder import GivenVectors, ItemEncoder
from .network import N
from .ranker import Prefix
from .running import inference
from .template import special_ids

__all__ = ["Part", "assemble", "assemble_encoder"]

Part = tuple[PreTrainedModel, PreTrainedTokenizerBase]

TESTED = "docs/models.md lists what works: BERT, RoBERTa, ModernBERT, Qwen3, Llama, Gemma and others"
TOLERANCE = 1e-3  # of the largest state; float32 rounding stays below 1e-5, a wrong mask shows at 1e-1
TEXTS = ["a", "a longer text"]


def assemble(make: type[N], config: MixLMConfig, encoder: Part | None, ranker: Part) -> N:
    """A MixLM in float32 whose parts have passed the checks below. Without ``encoder``, documents are vectors.

    Raises InputError if the parts do not fit together or fail a check.
    """
    _survive_forks()
    backbone, tokenizer = ranker
    item_encoder = GivenVectors(tokenizer, config) if encoder is None else assemble_encoder(config, *encoder)
    with _usable_as("a ranker", backbone):
        _check_vocabulary(backbone, tokenizer, config.prompt, config.suffix)
        if "{document}" not in config.prompt and len(special_ids(tokenizer, config.score_token)) != 1:
            raise InputError(f"its tokenizer has no token {config.score_token!r}, the score_token: name one of its own")
        reader = FastRanker(backbone.float(), tokenizer, config)
        with inference(reader):
            _check_ranker(reader, config.tokens)
    projector = None
    if config.vectors or item_encoder.hidden_size != reader.hidden_size:
        projector = nn.Linear(item_encoder.hidden_size, reader.hidden_size, dtype=torch.float32)
    return make(config, item_encoder, reader, projector)


def assemble_encoder(config: MixLMConfig, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> ItemEncoder:
    """An item encoder without a ranker, in float32, that has passed the checks below."""
    with _usable_as("an item encoder", backbone):
        _check_vocabulary(backbone, tokenizer, config.template)
        encoder = ItemEncoder(backbone.float(), tokenizer, config)
        with inference(encoder):
            _check_item_encoder(encoder)
    return encoder


@cache
def _survive_forks() -> None:
    """Make children that are forked from now on compute with one thread each.

    OpenMP's other threads are not forked, and a child would wait for them forever.
    """
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@contextmanager
def _usable_as(part: str, backbone: PreTrainedModel) -> Iterator[None]:
    """Raises InputError for any failure: architectures differ in more ways than can be checked one by one."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{type(backbone).__name__} cannot be {part}: {error}") from None
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise InputError(f"{type(backbone).__name__} cannot be {part} ({reason(error)}); {TESTED}") from None


def _check_vocabulary(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *templates: str) -> None:
    """Raises InputError if a token of a text or of the templates has no embedding.

    Special tokens may lack one: in texts they are read as plain characters.
    """
    rows = cast(Tensor, backbone.get_input_embeddings().weight).shape[0]
    never = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = set(tokenizer.get_vocab().values()) - never
    ids.update([tokenizer.unk_token_id or 0], *(special_ids(tokenizer, template) for template in templates))
    if max(ids) >= rows:
        raise InputError(
            f"its tokenizer gives ids up to {max(ids)}, and it has embeddings for ids below {rows}: after adding "
            "tokens call resize_token_embeddings, or take the tokenizer that belongs to it"
        )


def _check_item_encoder(encoder: ItemEncoder) -> None:
    """Texts must have the same states alone (as stored), padded beside others (as in training) and as queries.

    Architectures that mix positions by other means than attention (FNet, MobileBERT) mix in padding. Raises InputError
    for them, and whatever the backbone raises.
    """
    ids = encoder.document_ids(TEXTS)
    alone = [encoder.states(torch.tensor([row], device=encoder.backbone.device))[0] for row in ids]
    right = [*alone, *encoder.token_states(encoder.query_ids(TEXTS))]
    found = [*encoder.token_states(ids), *encoder.query_states(TEXTS)]
    _check_same(right, found, "beside a longer text", "it mixes positions by more than attention")


def _check_ranker(ranker: FastRanker, tokens: int) -> None:
    """Raises InputError for a ranker whose states MixLM would compute wrongly, and whatever the backbone raises.

    Architectures that mix positions by other means than the attention interface (FNet, Mamba, Qwen3-Next) run packed
    sequences without an error, but wrongly; so do decoders that are not causal under their family's mask.
    """
    # two queries with three documents each, alone and packed behind a shared prefix
    prefixes = ranker.prefixes(TEXTS)
    places = torch.arange(6 * tokens * ranker.hidden_size, dtype=torch.float32, device=ranker.device)
    items = places.sin().view(2, 3, tokens, ranker.hidden_size) * prefixes[0].states.std()
    pairs = [(prefix, item) for prefix, group in zip(prefixes, items, strict=True) for item in group]
    alone = ranker([prefix for prefix, _ in pairs], [item for _, item in pairs])
    packed = torch.cat(ranker.forward_packed(prefixes, list(items)))
    interface = "it mixes positions by more than its attention interface"
    _check_same([alone], [packed], "behind a shared prefix", interface)

    # a document without a query, under MixLM's mask and under the backbone's own
    document, tail = prefixes[1].states, prefixes[1].tail
    nothing, whole = document[:0], torch.cat([document, tail])
    if ranker.mix_layer:
        (own,) = ranker.states([whole], [0], ranker.mix_layer, ranker.layers)
    else:  # with the backbone's own positions, too
        types = torch.ones(1, len(whole), dtype=torch.long, device=ranker.device)
        extra = {"token_type_ids": types} if ranker.segments else {}
        own = ranker.backbone(inputs_embeds=whole[None], use_cache=False, **extra).last_hidden_state[0]
    if ranker.mixes_both_ways:  # as a query without a document
        right, found = own[:1], ranker([Prefix(whole, nothing)], [nothing])
    else:
        right, found = own[-1:], ranker([Prefix(nothing, tail)], [document])
    kind = "causal" if ranker.family.causal else "bidirectional"
    _check_same([right], [found], "in MixLM's own forward pass", f"its attention is not {kind}")

    # a text through all layers as the backbone runs them; and up to the mix layer, then from there on
    if ranker.mix_layer:
        inputs = ranker.inputs(TEXTS[1:])
        lengths = [len(inputs[0])]
        below = ranker.states(inputs, lengths, 0, ranker.mix_layer)
        parts = ranker.states(below, lengths, ranker.mix_layer, ranker.layers)
        through = ranker.states(inputs, lengths, 0, ranker.layers)
        _check_same(through, parts, "in two parts", "it cannot have a mix layer")


def _check_same(right: Sequence[Tensor], found: Sequence[Tensor], where: str, so: str) -> None:
    """Raises InputError if states differ by more than ``TOLERANCE``, as a share of the largest state."""
    largest = max(float(states.abs().max()) for states in right)
    off = max(float((a - b).abs().max()) for a, b in zip(right, found, strict=True)) / largest
    if not off <= TOLERANCE:
        raise InputError(f"{where} its states are off by {off:.0%}, so {so}; {TESTED}")
