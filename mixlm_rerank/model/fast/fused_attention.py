"""Shared-prefix attention without gradients on a GPU: the tiles of a layout, as a table that one kernel reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..running import moved
from .attention_kernel import attend_tiles
from .layout import PackedAttention, PackedLayout

__all__ = ["BLOCK", "FusedTiles", "fused_tiles"]

LOG2_E = math.log2(math.e)
BLOCK = 64  # rows of a tile, and keys read at once


@dataclass(frozen=True)
class FusedTiles(PackedAttention):
    """The tiles of a layout as tables, for attention without gradients.

    Attributes:
        every, scores: tables of tiles, int32 [tiles, 8], see :func:`attend_tiles`: for every row, and for the last
            row of each item only.
    """

    every: Tensor
    scores: Tensor
    item_length: int
    causal: bool

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return self._run(self.every, 1, query, key, value, scale)

    def attend_scores(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return self._run(self.scores, self.item_length, query, key, value, scale)

    def _run(self, table: Tensor, step: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        parts = (query, key, value, out)
        strides = [stride for part in parts for stride in part.stride()[:2]]
        with torch.cuda.device_of(query):  # Triton launches on the current GPU, wherever the tensors are
            attend_tiles[(len(table), query.shape[1])](
                *parts, table, scale * LOG2_E, *strides,
                GROUPS=query.shape[1] // key.shape[1], HEAD=query.shape[2], ITEM=self.item_length, STEP=step,
                CAUSAL=self.causal, BLOCK=BLOCK, PRECISION="ieee", num_warps=4, num_stages=2,
            )  # fmt: skip
        return out


def fused_tiles(layout: PackedLayout, device: torch.device) -> FusedTiles:
    """The tiles of a layout."""
    prefixes, counts = torch.tensor(layout.prefix_lengths), torch.tensor(layout.item_counts)
    item_length, causal = layout.item_length, layout.causal
    starts = prefixes.cumsum(0) - prefixes
    blocks = -(-prefixes // BLOCK)
    query = torch.arange(len(prefixes)).repeat_interleave(blocks)  # of each block
    offset = (torch.arange(len(query)) - (blocks.cumsum(0) - blocks)[query]) * BLOCK
    rows = (prefixes[query] - offset).clamp(max=BLOCK)
    seen = offset + rows if causal else prefixes[query]
    nothing = torch.zeros_like(query)
    of_prefixes = torch.stack([starts[query] + offset, rows, starts[query], seen, offset, *[nothing] * 3], dim=1)

    together = max(1, BLOCK // item_length)  # items per tile; a long item has several tiles
    pieces = -(-item_length // BLOCK)
    groups = -(-counts // together)
    query = torch.arange(len(counts)).repeat_interleave(groups * pieces)
    within = torch.arange(len(query)) - ((groups * pieces).cumsum(0) - groups * pieces)[query]
    item = within // pieces * together
    span = (counts[query] - item).clamp(max=together) * item_length
    offset = within % pieces * BLOCK
    rows = (span - offset).clamp(max=BLOCK)
    before = counts.cumsum(0)[query] - counts[query] + item  # items before the tile's first
    own = prefixes.sum() + before * item_length
    prefix = [starts[query], prefixes[query], prefixes[query]]
    seen = offset + rows if causal else span
    of_items = torch.stack([own + offset, rows, *prefix, own, seen, offset], dim=1)
    nothing = torch.zeros_like(query)
    of_scores = torch.stack([before, span // item_length, *prefix, own, span, nothing], dim=1)[offset == 0]
    whole = torch.cat([of_prefixes, of_items, of_scores]).int()
    every, scores = moved(whole, device).split([len(of_prefixes) + len(of_items), len(of_scores)])
    return FusedTiles(every, scores, item_length, causal)
