"""Attention of a training step in bfloat16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["Float32Attention"]


class Float32Attention(TorchFunctionMode):
    """As a context: attention between bfloat16 tensors on a CPU is computed in float32.

    There PyTorch's backward pass of attention takes eight times as long in bfloat16 (2.13, AMX): half of a step.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        query = args[0] if args else options.get("query")
        if func is not F.scaled_dot_product_attention or not _slow(query):
            return func(*args, **options)
        with torch.autocast("cpu", enabled=False):
            exact = {name: _exact(part) for name, part in options.items()}
            attended: Tensor = func(*map(_exact, args), **exact)
        return attended.to(torch.bfloat16)


def _slow(query: object) -> bool:
    return isinstance(query, Tensor) and query.device.type == "cpu" and query.dtype is torch.bfloat16


def _exact(part: Any) -> Any:
    """Numbers in float32; masks of truth values, and what is no tensor, as they are."""
    return part.float() if isinstance(part, Tensor) and part.is_floating_point() else part
