"""From the CPU to where a model is."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["moved"]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``. A GPU is not waited for: from pinned memory it fetches by itself, in its own order."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
