"""Four ways of one decoder to score a query's documents: text or embedding tokens, prefix for each or once for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from mixlm_rerank.model import MixLM
from mixlm_rerank.model.ranker import Prefix
from mixlm_rerank.scoring import SharedPrefixScorer

__all__ = ["FULL_CACHED", "FULL_TEXT", "MIXLM", "MIXLM_ALONE", "WAYS", "Way", "ways"]

FULL_TEXT, FULL_CACHED = "full text", "full text, prefix once"
MIXLM_ALONE, MIXLM = "MixLM, without prefix sharing", "MixLM"
WAYS = (FULL_TEXT, FULL_CACHED, MIXLM_ALONE, MIXLM)
TEXT_BATCHES, TOKEN_BATCHES = (1, 2, 4), (10, 25, 50)

Way = Callable[[str, int], Tensor]  # a query, and how many of the documents -> log-odds, float32 [n]


def ways(model: MixLM, texts: Sequence[str], tokens: Tensor) -> dict[str, dict[str, Way]]:
    """Each way's settings to choose from. All documents have the same length; ``tokens``: float [n, k, d] of them."""
    text, embedded = partial(_text_embeddings, model, texts), partial(_token_embeddings, model, tokens)
    alone = {"masked": _masked, "causal kernel": _causal}
    return {
        FULL_TEXT: {
            f"{kind}, batches of {batch}": partial(_each, model, own, text, batch)
            for kind, own in alone.items()
            for batch in TEXT_BATCHES
        },
        FULL_CACHED: {f"batches of {batch}": partial(_cached, model, text, batch) for batch in TEXT_BATCHES},
        MIXLM_ALONE: {
            f"{kind}, batches of {batch}": partial(_each, model, own, embedded, batch)
            for kind, own in alone.items()
            for batch in TOKEN_BATCHES
        },
        MIXLM: {"all at once": lambda query, count: SharedPrefixScorer(model).score(query, tokens[:count])},
    }


Documents = Callable[[Prefix, int], Sequence[Tensor]]  # a prefix, and how many -> [length, d] each


def _text_embeddings(model: MixLM, texts: Sequence[str], prefix: Prefix, count: int) -> Sequence[Tensor]:
    return model.ranker.documents(texts[:count], [len(prefix)] * len(texts[:count]))


def _token_embeddings(model: MixLM, tokens: Tensor, prefix: Prefix, count: int) -> Sequence[Tensor]:
    return list(model.project(tokens[:count]))


@torch.inference_mode()
def _each(
    model: MixLM,
    states: Callable[[MixLM, Prefix, Sequence[Tensor]], Tensor],
    documents: Documents,
    batch: int,
    query: str,
    count: int,
) -> Tensor:
    """Every document behind a prefix of its own, in batches."""
    (prefix,) = model.ranker.prefixes([query])
    whole = documents(prefix, count)
    found = [model.readout(states(model, prefix, whole[row : row + batch])) for row in range(0, len(whole), batch)]
    return torch.cat(found)


def _masked(model: MixLM, prefix: Prefix, documents: Sequence[Tensor]) -> Tensor:
    """:meth:`Ranker.forward`, for sequences of any lengths. -> [n, d]."""
    states: Tensor = model.ranker([prefix] * len(documents), documents)
    return states


def _causal(model: MixLM, prefix: Prefix, documents: Sequence[Tensor]) -> Tensor:
    """Sequences of one length need no mask: the kernel then leaves out what lies above the diagonal. -> [n, d]."""
    whole = torch.stack([torch.cat([prefix.states, document, prefix.tail]) for document in documents])
    states: Tensor = model.ranker.backbone(inputs_embeds=whole, use_cache=False).last_hidden_state
    return states[:, -1]


@torch.inference_mode()
def _cached(model: MixLM, documents: Documents, batch: int, query: str, count: int) -> Tensor:
    """The prefix's keys and values once, then the documents in batches, each behind a view of them."""
    backbone = model.ranker.backbone
    (prefix,) = model.ranker.prefixes([query])
    once = DynamicCache()
    backbone(inputs_embeds=prefix.states[None], past_key_values=once, use_cache=True)
    whole, found = documents(prefix, count), []
    for row in range(0, len(whole), batch):
        own = torch.stack([torch.cat([document, prefix.tail]) for document in whole[row : row + batch]])
        cache = DynamicCache()
        for number, layer in enumerate(cast(Any, once.layers)):
            shape = (len(own), -1, -1, -1)
            cache.update(layer.keys.expand(shape), layer.values.expand(shape), number)
        states = backbone(inputs_embeds=own, past_key_values=cache, use_cache=True).last_hidden_state
        found.append(model.readout(states[:, -1]))
    return torch.cat(found)
