"""Attention in float32 inside a bfloat16 step: the same up to rounding, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import AutoModel

from mixlm_rerank import MixLM
from mixlm_rerank.training.mix import Source, TrainingMix
from mixlm_rerank.training.stage3 import JointOptions, train_joint
from mixlm_rerank.training.stage_trainer import Float32Attention, without_dropout


class Computed(TorchFunctionMode):
    """Notes the formats that attention is computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.formats: set[torch.dtype] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.formats.add((args[0] if args else kwargs["query"]).dtype)
        return func(*args, **(kwargs or {}))


def test_attention_of_bfloat16_is_computed_in_float32() -> None:
    """And rounded once."""
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, 5, 8, generator=draw).bfloat16().requires_grad_() for _ in range(3)]
    mask = torch.zeros(5, 5, dtype=torch.bfloat16).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    for masks in ({}, {"attn_mask": mask}, {"attn_mask": mask == 0}):
        exact = F.scaled_dot_product_attention(*(part.detach().float() for part in parts), **_like(masks))
        query, key, value = parts
        with Computed() as computed, torch.autocast("cpu", torch.bfloat16), Float32Attention():
            found = F.scaled_dot_product_attention(*parts, **masks)
            named = F.scaled_dot_product_attention(query=query, key=key, value=value, **masks)
            placed = F.scaled_dot_product_attention(*parts, masks.get("attn_mask"))
        assert computed.formats == {torch.float32}
        for own in (found, named, placed):
            assert own.dtype is torch.bfloat16
            torch.testing.assert_close(own.float(), exact, atol=1e-5, rtol=4e-3)  # half a unit of 8 bits
        found.sum().backward()
        assert all(part.grad is not None and part.grad.isfinite().all() for part in parts)


def test_other_numbers_and_other_functions_are_left_alone() -> None:
    parts = [torch.randn(1, 2, 4, 8) for _ in range(3)]
    plain = F.scaled_dot_product_attention(*parts)
    with Float32Attention():
        found = F.scaled_dot_product_attention(*parts)
        assert found.dtype is torch.float32 and torch.equal(found, plain)
        half = torch.ones(2, dtype=torch.bfloat16)
        assert (half + half).dtype is torch.bfloat16


@pytest.mark.parametrize("frozen", [False, True])
def test_training_in_bfloat16_computes_attention_so(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    monkeypatch.setattr("mixlm_rerank.training.stage_trainer.bf16_pays", lambda device=None: True)
    rates = (0.0 if frozen else 1e-4, 1e-4, 1e-3)
    options = JointOptions(budgets=(1,), learning_rates=rates, bf16=True)
    with Computed() as computed:
        train_joint(fresh(), TrainingMix([source], 1, queries=2, candidates=3), tmp_path, options, progress=False)
    assert computed.formats == {torch.float32}


def _like(masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: mask.float() if mask.is_floating_point() else mask for name, mask in masks.items()}


@pytest.mark.parametrize(
    ("family", "option"), [("bert", "attention_probs_dropout_prob"), ("qwen3", "attention_dropout")]
)
def test_without_dropout_a_pass_in_training_is_one_in_use(
    checkpoint: Callable[..., Path], family: str, option: str
) -> None:
    model = AutoModel.from_pretrained(checkpoint(family, **{option: 0.5})).train()
    ids = torch.arange(5, 12)[None]
    dropping = model(input_ids=ids).last_hidden_state
    without_dropout(model)
    training = model(input_ids=ids).last_hidden_state
    used = model.eval()(input_ids=ids).last_hidden_state
    assert torch.allclose(training, used, atol=1e-6) and not torch.allclose(dropping, used, atol=1e-3)
