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
        if func is not F.scaled_dot_product_attention or not _slow(args[0]):
            return func(*args, **options)
        mask = options.get("attn_mask")
        if mask is not None and mask.is_floating_point():
            options = {**options, "attn_mask": mask.float()}
        with torch.autocast("cpu", enabled=False):
            attended: Tensor = func(*(part.float() for part in args), **options)
        return attended.to(args[0].dtype)


def _slow(query: Tensor) -> bool:
    return query.device.type == "cpu" and query.dtype is torch.bfloat16
