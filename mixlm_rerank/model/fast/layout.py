"""The layout of a forward pass's flattened sequence, and the interface of its attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..running import moved

__all__ = ["PackedAttention", "PackedLayout"]


@dataclass(frozen=True)
class PackedLayout:
    """The layout of a flattened sequence.

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
        prefixes, counts = torch.tensor(self.prefix_lengths), torch.tensor(self.item_counts)
        starts = prefixes.cumsum(0) - prefixes
        in_prefixes = torch.arange(sum(self.prefix_lengths)) - starts.repeat_interleave(prefixes)
        in_items = torch.arange(self.item_length).repeat(sum(self.item_counts))
        before = prefixes.repeat_interleave(counts * self.item_length)
        return moved(torch.cat([in_prefixes, before + in_items]), device)

    def score_rows(self, device: torch.device) -> Tensor:
        """[items]. The last row of every item."""
        first = sum(self.prefix_lengths) + self.item_length - 1
        return torch.arange(sum(self.item_counts), device=device) * self.item_length + first


class PackedAttention(Protocol):
    """Attention over a flattened sequence."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of all rows. query [length, heads, d], key/value [length, kv_heads, d] -> [length, heads, d]."""
        ...

    def attend_scores(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of the last row of every item. query [items, heads, d] -> [items, heads, d]."""
        ...
