"""Shared-prefix attention: many items read one prefix, computed once, inside any Transformers backbone.

One flattened sequence holds the prefixes of some queries and then all their items:

    [prefix_1 | prefix_2 | ... | items of query 1 | items of query 2 | ...]

Every item attends to its query's prefix and to itself, in one softmax over both parts, so the result is that of
scoring the item alone. Registered as a Transformers attention function, it runs every architecture that uses the
attention interface, unchanged; without a layout it is plain SDPA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..errors import InputError

__all__ = ["SHARED_PREFIX", "PackedLayout", "visible"]

SHARED_PREFIX = "mixlm_shared_prefix"


@dataclass(frozen=True)
class PackedLayout:
    """Where what lies in a flattened sequence.

    Attributes:
        prefix_lengths: positions of each query's prefix.
        item_counts: items of each query; all have ``item_length`` positions.
        causal: whether a position sees only what comes before it.
    """

    prefix_lengths: tuple[int, ...]
    item_counts: tuple[int, ...]
    item_length: int
    causal: bool

    def position_ids(self, device: torch.device) -> Tensor:
        """[length]. Every item's positions restart right after its query's prefix, as if it were alone."""
        prefixes = [torch.arange(length) for length in self.prefix_lengths]
        items = [
            torch.arange(length, length + self.item_length).repeat(count)
            for length, count in zip(self.prefix_lengths, self.item_counts, strict=True)
        ]
        return torch.cat(prefixes + items).to(device)


def visible(queries: Tensor, keys: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """Which key positions each query position may see. [n], [m] -> bool [n, m].

    ``window``: a position sees others at a distance below it (sliding-window layers).
    """
    distance = queries[:, None] - keys[None, :]
    mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return mask if window is None else mask & (distance.abs() < window)


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    layout: PackedLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over a flattened sequence. query [1, heads, length, d], key/value [1, kv_heads, length, d]."""
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise InputError("backbones with soft-capped attention or attention sinks (Gemma 2, GPT-OSS) are not supported")
    groups = query.shape[1] // key.shape[1]
    q, k, v = query[0], key[0].repeat_interleave(groups, dim=0), value[0].repeat_interleave(groups, dim=0)
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling

    outputs, sections = [], []
    start = 0
    for length in layout.prefix_lengths:
        stop = start + length
        positions = torch.arange(length, device=q.device)
        mask = visible(positions, positions, causal=layout.causal, window=sliding_window)
        prefix_k, prefix_v = k[:, start:stop], v[:, start:stop]
        outputs.append(F.scaled_dot_product_attention(q[:, start:stop], prefix_k, prefix_v, mask, scale=scale))
        sections.append((prefix_k, prefix_v))
        start = stop
    for (prefix_k, prefix_v), count in zip(sections, layout.item_counts, strict=True):
        stop = start + count * layout.item_length
        span = slice(start, stop)
        outputs.append(
            _items_attention(q[:, span], k[:, span], v[:, span], prefix_k, prefix_v, layout, sliding_window, scale)
        )
        start = stop
    return torch.cat(outputs, dim=1).transpose(0, 1).unsqueeze(0).contiguous(), None


def _items_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    layout: PackedLayout,
    window: int | None,
    scale: float,
) -> Tensor:
    """One query's items: q, k, v [heads, count * item_length, d] over their prefix and themselves."""
    heads, length, d = q.shape
    prefix_length = prefix_k.shape[1]
    items = (heads, length // layout.item_length, layout.item_length)
    own = torch.arange(prefix_length, prefix_length + layout.item_length, device=q.device)
    before = torch.arange(prefix_length, device=q.device)

    q = q * scale
    to_prefix = (q @ prefix_k.transpose(1, 2)).view(*items, prefix_length)
    to_own = q.view(*items, d) @ k.view(*items, d).transpose(2, 3)
    to_own = to_own.masked_fill(~visible(own, own, causal=layout.causal, window=window), -torch.inf)
    if window is not None:
        to_prefix = to_prefix.masked_fill(~visible(own, before, causal=layout.causal, window=window), -torch.inf)
    weights = torch.cat([to_prefix, to_own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    from_prefix = weights[..., :prefix_length].reshape(heads, length, prefix_length) @ prefix_v
    from_own = weights[..., prefix_length:] @ v.view(*items, d)
    return from_prefix + from_own.reshape(heads, length, d)


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)
