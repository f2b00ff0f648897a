"""What the positions of a sequence may see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["visible", "window_of"]


def visible(queries: Tensor, keys: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """Which key positions each query position may see. [..., n], [..., m] -> bool [..., n, m].

    ``window``: a position sees others at a distance below it (sliding-window layers).
    """
    distance = queries[..., :, None] - keys[..., None, :]
    mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return mask if window is None else mask & (distance.abs() < window)


def window_of(config: Any, layer_type: str, *, causal: bool) -> int | None:
    """The sliding window of layers of one type, for :func:`visible`. Raises InputError if it is unknown."""
    every_layer = getattr(config, "layer_types", None) is None and getattr(config, "use_sliding_window", True)
    if layer_type == "full_attention" and not (every_layer and getattr(config, "sliding_window", None)):
        return None  # Mistral and the like name no layer types: a window, if there is one, holds for all
    window: int | None = getattr(config, "sliding_window", None)
    if window is None:
        raise InputError(f"MixLM does not know what positions see in layers of type {layer_type!r}")
    return window if causal else window + 1  # Transformers: causal exclusive, bidirectional inclusive
