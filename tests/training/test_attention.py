"""Attention in float32 inside a bfloat16 step: the same up to rounding, and nothing else is touched."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from mixlm_rerank.training.attention import Float32Attention


def test_attention_of_bfloat16_is_computed_in_float32() -> None:
    parts = [torch.randn(2, 3, 5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    mask = torch.zeros(5, 5, dtype=torch.bfloat16).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    for masks in ({}, {"attn_mask": mask}, {"attn_mask": mask == 0}):
        exact = F.scaled_dot_product_attention(*(part.detach().float() for part in parts), **_like(masks))
        with torch.autocast("cpu", torch.bfloat16), Float32Attention():
            found = F.scaled_dot_product_attention(*parts, **masks)
        assert found.dtype is torch.bfloat16
        assert torch.equal(found, exact.bfloat16())
        query, key, value = parts
        with torch.autocast("cpu", torch.bfloat16), Float32Attention():
            named = F.scaled_dot_product_attention(query=query, key=key, value=value, **masks)
            placed = F.scaled_dot_product_attention(*parts, masks.get("attn_mask"))
        assert torch.equal(found, named) and torch.equal(found, placed)
        found.sum().backward()
        assert all(part.grad is not None and part.grad.isfinite().all() for part in parts)


def test_other_numbers_and_other_functions_are_left_alone() -> None:
    parts = [torch.randn(1, 2, 4, 8) for _ in range(3)]
    with Float32Attention():
        assert torch.equal(F.scaled_dot_product_attention(*parts), F.scaled_dot_product_attention(*parts))
        half = torch.ones(2, dtype=torch.bfloat16)
        assert (half + half).dtype is torch.bfloat16


def _like(masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: mask.float() if mask.is_floating_point() else mask for name, mask in masks.items()}
