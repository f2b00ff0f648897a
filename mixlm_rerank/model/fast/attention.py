"""Shared-prefix attention: many items read one prefix, computed once, inside any Transformers backbone.

One flattened sequence holds the prefixes of some queries and then all their items:

    [prefix_1 | prefix_2 | ... | items of query 1 | items of query 2 | ...]

Every item attends to its query's prefix and to itself, in one softmax over both parts, so the result is that of scoring
the item alone. It is registered as a Transformers attention function, so architectures that use the attention interface
run unchanged; without a layout it is plain SDPA.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ...errors import InputError
from ..layers import may_attend
from .layout import PackedAttention, PackedLayout

__all__ = ["SHARED_PREFIX", "PackedTiles", "attention_of", "tiles_of"]

SHARED_PREFIX = "mixlm_shared_prefix"
# Rows of a tile: enough for an efficient matrix product, few enough to compute little for masked pairs.
ROWS_PER_TILE = 48


@dataclass(frozen=True)
class Tiles:
    """Rows of a flattened sequence in tiles of equal size, each with all keys that any of its rows may see.

    Attributes:
        rows: [tiles, r], positions in the flattened sequence; padding repeats an existing row.
        keys: [tiles, s], positions in the flattened sequence.
        mask: [tiles, 1, r, s], added to attention logits: 0 or -inf.
        places: [n], indices of the wanted rows in ``rows.flatten()``, in the order of the sequence.
    """

    rows: Tensor
    keys: Tensor
    mask: Tensor
    places: Tensor

    @classmethod
    def of(cls, rows: Tensor, keys: Tensor, seen: Tensor, wanted: Tensor, device: torch.device) -> Tiles:
        mask = torch.zeros(seen.shape, dtype=torch.float32).masked_fill(~seen, -torch.inf)[:, None]
        places = wanted.flatten().nonzero().squeeze(1)
        return cls(rows.to(device), keys.to(device), mask.to(device), places.to(device))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, **extra: Any) -> Tensor:
        """query [length, heads, d], key/value [length, kv_heads, d] -> the wanted rows, [n, heads, d]."""
        q, k, v = query[self.rows].transpose(1, 2), key[self.keys].transpose(1, 2), value[self.keys].transpose(1, 2)
        return _attended(q, k, v, self.mask, scale, **extra).transpose(1, 2).flatten(0, 1)[self.places]


@dataclass(frozen=True)
class PackedTiles(PackedAttention):
    """The tiles of a layout.

    Attributes:
        prefixes: one tile per query.
        items: tiles of several items.
        scores: tiles of several items, with only the last row of each; their ``rows`` count items.
    """

    prefixes: Tiles
    items: Tiles
    scores: Tiles

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, **extra: Any) -> Tensor:
        """``extra``: see :func:`_attended`."""
        return torch.cat([tiles.attend(query, key, value, scale, **extra) for tiles in (self.prefixes, self.items)])

    def attend_scores(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return self.scores.attend(query, key, value, scale)


def attention_of(layout: PackedLayout, window: int | None, device: torch.device, head: int) -> PackedAttention:
    """One kernel for scoring on a GPU, if Triton is installed; else tiles. ``head``: size of the heads."""
    fits = window is None and 16 <= head <= 128 and head & (head - 1) == 0  # heads are read as blocks
    if fits and device.type == "cuda" and not torch.is_grad_enabled() and find_spec("triton") is not None:
        from .fused_attention import fused_tiles

        return fused_tiles(layout, device)
    return tiles_of(layout, window, device)


@lru_cache(maxsize=8)  # all layers of a forward pass use the same tiles; a few threads at a time
@torch.inference_mode(False)  # tiles cached in scoring must also serve a training step
def tiles_of(layout: PackedLayout, window: int | None, device: torch.device) -> PackedTiles:
    """The tiles of a layout under a sliding window, if there is one: see :func:`may_attend`."""
    prefixes, counts = torch.tensor(layout.prefix_lengths), torch.tensor(layout.item_counts)
    starts = prefixes.cumsum(0) - prefixes
    before = torch.arange(int(prefixes.max()))
    real = before < prefixes[:, None]
    position = before.minimum(prefixes[:, None] - 1)  # padding repeats the last position
    prefix_rows = starts[:, None] + position
    prefix_mask = may_attend(position, before, causal=layout.causal, window=window) & real[:, None]

    length = layout.item_length
    in_tile = min(max(1, ROWS_PER_TILE // length), int(counts.max()))
    in_tile_row = torch.arange(in_tile * length)
    own, item = in_tile_row % length, in_tile_row // length
    inside = may_attend(own, own, causal=layout.causal, window=window) & (item[:, None] == item)
    tiles = -(-counts // in_tile)
    query = torch.arange(len(counts)).repeat_interleave(tiles)  # of each tile
    number = torch.arange(len(query)) - (tiles.cumsum(0) - tiles)[query]  # of the tile among its query's
    query_row = number[:, None] * len(in_tile_row) + in_tile_row  # among all rows of a query's items
    all_rows = (counts * length)[query, None]
    item_starts = prefixes.sum() + (counts.cumsum(0) - counts) * length
    rows = item_starts[query, None] + query_row.minimum(all_rows - 1)
    to_prefix = (
        may_attend(prefixes[query, None] + own, before, causal=layout.causal, window=window) & real[query][:, None]
    )
    mask = torch.cat([to_prefix, inside.expand(len(query), -1, -1)], dim=-1)
    keys, last = torch.cat([prefix_rows[query], rows], dim=1), slice(length - 1, None, length)
    of_scores = (rows[:, last] - prefixes.sum()) // length, keys, mask[:, last], (query_row < all_rows)[:, last]
    parts = (prefix_rows, prefix_rows, prefix_mask, real), (rows, keys, mask, query_row < all_rows), of_scores
    return PackedTiles(*(Tiles.of(*part, device) for part in parts))


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
    if layout is None and attention_mask is not None and attention_mask.shape[-1] < key.shape[2]:
        raise InputError("its layers do not hand keyword arguments on to their attention")  # the layout was lost
    extra = {name: kwargs[name] for name in ("softcap", "s_aux") if kwargs.get(name) is not None}
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout is None and extra:
        if attention_mask is None:  # Transformers leaves the causal mask to the attention
            places = torch.arange(query.shape[2], device=query.device)
            attention_mask = may_attend(places, places, causal=bool(module.is_causal), window=sliding_window)[
                None, None
            ]
        return _attended(query, key, value, attention_mask, scale, **extra).transpose(1, 2), None
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    return tiles_of(layout, sliding_window, q.device).attend(q, k, v, scale, **extra)[None], None


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    """query [b, heads, r, d], key/value [b, kv_heads, s, d], mask bool or added [b, 1, r, s] -> [b, heads, r, d].

    Args:
        softcap: bound of the logits (Gemma 2, 2408.00118).
        s_aux: [heads], the logit of a key without a value, an attention sink (GPT-OSS, 2508.10925).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if mask.dtype == torch.bool:
        # finite, because padding rows see nothing
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    mask = mask.to(query.dtype)
    if softcap is None and s_aux is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    logits = query @ key.transpose(2, 3) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits + mask
    if s_aux is not None:
        logits = torch.cat([logits, s_aux.view(1, -1, 1, 1).expand(*logits.shape[:3], 1).to(logits)], dim=3)
    weights = logits.softmax(dim=3, dtype=torch.float32)[..., : key.shape[2]]
    return weights.to(value.dtype) @ value


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)
