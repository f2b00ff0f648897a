"""From the item encoder's hidden states to embedding tokens."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["last_states", "nested_means", "segment_means"]


def last_states(states: Tensor, count: int) -> Tensor:
    """The paper's last-N sampling: states of the last ``count`` positions. [b, length, d] -> [b, count, d].

    A document with fewer positions repeats its first one in front.
    """
    missing = count - states.shape[1]
    if missing > 0:
        states = torch.cat([states[:, :1].expand(-1, missing, -1), states], dim=1)
    return states[:, states.shape[1] - count :]


def segment_means(states: Tensor, count: int) -> Tensor:
    """Means of ``count`` equal segments, in reading order. [b, length, d] -> [b, count, d].

    Segments overlap by one position where the length is not a multiple of ``count``, so none is ever empty.
    """
    length = states.shape[1]
    bounds = [(i * length // count, -((i + 1) * -length // count)) for i in range(count)]
    means = [states[:, start : max(stop, start + 1)].mean(dim=1) for start, stop in bounds]
    return torch.stack(means, dim=1) if means else states[:, :0]


def nested_means(states: Tensor, count: int) -> Tensor:
    """Segment means from fine to coarse: ... quarters, halves. [b, length, d] -> [b, count, d].

    The last 2, 6, 14 ... of them cover the whole text, so that a small token budget does not see its end alone. A
    number in between makes the finest level finer: 7 are 5 segments and 2 halves.
    """
    levels, size = [], 2
    while count >= size + 2 * size:  # room for this level and the next
        levels.append(size)
        count, size = count - size, 2 * size
    return torch.cat([segment_means(states, level) for level in (count, *reversed(levels))], dim=1)
