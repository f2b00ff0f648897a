"""How many token positions go into one forward pass."""

from __future__ import annotations

import torch

__all__ = ["positions_per_forward"]

ON_GPU = 32_768


def positions_per_forward(device: torch.device, on_cpu: int) -> int:
    """A GPU wants to be filled; on a CPU, what was measured to be fast: few thousand, and more is not faster."""
    return on_cpu if device.type == "cpu" else ON_GPU
