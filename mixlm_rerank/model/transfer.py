"""From the CPU to where a model is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["joined", "moved"]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``. A GPU is not waited for: from pinned memory it fetches by itself, in its own order."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def joined(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """Parts one behind the other, as ``moved(torch.cat(parts), device)`` with one copy less."""
    if device.type != "cuda" or any(part.device.type != "cpu" for part in parts):
        return moved(torch.cat(list(parts)), device)
    first = parts[0]
    count = sum(len(part) for part in parts)
    pinned = torch.empty(count, *first.shape[1:], dtype=first.dtype, pin_memory=True)
    torch.cat(list(parts), out=pinned)
    return pinned.to(device, non_blocking=True)
