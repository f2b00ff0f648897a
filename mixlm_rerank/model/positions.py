"""How many token positions go into one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

import torch

__all__ = ["of_like_length", "positions_per_forward"]

ON_CPU, ON_GPU = 4096, 32_768


def positions_per_forward(device: torch.device, on_cpu: int = ON_CPU) -> int:
    """A GPU wants to be filled; on a CPU, what was measured to be fast: few thousand, and more is not faster."""
    return on_cpu if device.type == "cpu" else ON_GPU


def of_like_length(texts: Sequence[Sized], device: torch.device, beside: int = 0) -> Iterator[list[int]]:
    """Rows of texts for one forward pass after the other, the longest first: in a pass all are padded to its longest.

    ``texts``: token ids, or states. ``beside``: positions that each takes besides its own.
    """
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    positions = positions_per_forward(device)
    while order:
        size = max(1, positions // (len(texts[order[0]]) + beside))
        yield order[:size]
        order = order[size:]
