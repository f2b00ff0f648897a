"""A known answer, asked of both parts of a model when it is loaded: do they compute what MixLM needs?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from .fast.ranker import FastRanker
from .item_encoder import ItemEncoder
from .ranker import Prefix
from .running import scoring
from .template import special_ids

__all__ = ["TESTED", "check_item_encoder", "check_ranker", "check_vocabulary"]

TESTED = "docs/models.md lists what works: BERT, RoBERTa, ModernBERT, Qwen3, Llama, Gemma and others"
TOLERANCE = 1e-3  # of the largest state; float32 rounding stays below 1e-5, a wrong mask shows at 1e-1
TEXTS = ["a", "a longer text"]


def check_vocabulary(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *templates: str) -> None:
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


@scoring
def check_item_encoder(encoder: ItemEncoder) -> None:
    """Texts must have the same states alone (as stored), padded beside others (as in training) and as queries.

    Architectures that mix positions by other means than attention (FNet, MobileBERT) mix padding in. Raises InputError
    for them, and whatever the backbone raises.
    """
    ids = encoder.document_ids(TEXTS)
    device = encoder.backbone.device
    alone = [encoder.states(torch.tensor([row], device=device))[0] for row in ids]
    queries = encoder.token_states(encoder.query_ids(TEXTS))
    off = _difference([*alone, *queries], [*encoder.token_states(ids), *encoder.query_states(TEXTS)])
    if not off <= TOLERANCE:
        raise InputError(
            f"beside a longer text its states are off by {off:.0%}, so it mixes positions by more than attention; "
            f"{TESTED}"
        )


@scoring
def check_ranker(ranker: FastRanker, tokens: int) -> None:
    """Raises InputError for a ranker whose states MixLM does not compute right, and whatever the backbone raises.

    Architectures that mix positions by other means than the attention interface (FNet, Mamba, Qwen3-Next) run packed
    sequences without an error, and wrong; so do decoders that are not causal under their family's mask.
    """
    prefixes = ranker.prefixes(TEXTS)
    reasons = {
        "behind a shared prefix": (
            _packed(ranker, prefixes, tokens),
            "it mixes positions by more than its attention interface",
        ),
        "in MixLM's own forward pass": (
            _masked(ranker, prefixes[1]),
            f"its attention is not {'causal' if ranker.family.causal else 'bidirectional'}",
        ),
    }
    if ranker.mix_layer:
        reasons["in two parts"] = (_in_parts(ranker), "it cannot have a mix layer")
    for where, (off, reason) in reasons.items():
        if not off <= TOLERANCE:
            raise InputError(f"{where} its states are off by {off:.0%}, so {reason}; {TESTED}")


def _difference(right: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest, as a share of the largest state."""
    largest = max(float(states.abs().max()) for states in right)
    return max(float((a - b).abs().max()) for a, b in zip(right, other, strict=True)) / largest


def _packed(ranker: FastRanker, prefixes: Sequence[Prefix], tokens: int) -> float:
    """Two queries with three documents each, alone and packed behind a shared prefix."""
    places = torch.arange(6 * tokens * ranker.hidden_size, dtype=torch.float32, device=ranker.device)
    items = places.sin().view(2, 3, tokens, ranker.hidden_size) * prefixes[0].states.std()
    pairs = [(prefix, item) for prefix, group in zip(prefixes, items, strict=True) for item in group]
    alone = ranker([prefix for prefix, _ in pairs], [item for _, item in pairs])
    return _difference([alone], [torch.cat(ranker.forward_packed(prefixes, list(items)))])


def _masked(ranker: FastRanker, prefix: Prefix) -> float:
    """A document without a query, under MixLM's mask and under the backbone's own."""
    document, nothing = prefix.states, prefix.states[:0]
    whole = torch.cat([document, prefix.tail])
    if ranker.mix_layer:
        (own,) = ranker.states([whole], [0], ranker.mix_layer, ranker.layers)
    else:
        types = torch.ones(1, len(whole), dtype=torch.long, device=ranker.device)
        extra = {"token_type_ids": types} if ranker.segments else {}
        own = ranker.backbone(inputs_embeds=whole[None], use_cache=False, **extra).last_hidden_state[0]
    if ranker.mixes_both_ways:  # as a query without a document
        return _difference([own[:1]], [ranker([Prefix(whole, nothing)], [nothing])])
    return _difference([own[-1:]], [ranker([Prefix(nothing, prefix.tail)], [document])])


def _in_parts(ranker: FastRanker) -> float:
    """A text through all layers as the backbone runs them; up to the mix layer, and on from there."""
    inputs, middle = ranker.inputs(TEXTS[1:]), ranker.mix_layer
    lengths = [len(own) for own in inputs]
    whole = ranker.states(inputs, lengths, 0, ranker.layers)
    parts = ranker.states(ranker.states(inputs, lengths, 0, middle), lengths, middle, ranker.layers)
    return _difference(whole, parts)
