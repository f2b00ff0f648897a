"""Tensors on disk: what comes back, and what stays in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch

from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.token_states import OnDisk


def test_they_come_back_in_float16_and_memory_holds_none_of_them(tmp_path: Path) -> None:
    kept, drawn = OnDisk(tmp_path / "new"), torch.Generator().manual_seed(0)
    tensors = {f"text {n}": torch.randn(n + 1, 7, generator=drawn).T for n in range(20)}
    for text, tensor in tensors.items():
        kept[text] = tensor
    for text, tensor in reversed(tensors.items()):
        assert torch.equal(kept[text], tensor.half())
    assert "text 3" in kept and "text 20" not in kept
    assert not list((tmp_path / "new").iterdir())  # the file has no name

    tracemalloc.start()
    for n in range(100):
        kept[f"large {n}"] = torch.full((500_000,), float(n))
    assert tracemalloc.get_traced_memory()[0] < 1e6
    tracemalloc.stop()
    assert kept["large 63"].unique().tolist() == [63]


@pytest.mark.parametrize("value", [70_000.0, float("nan")])
def test_what_float16_cannot_hold_is_refused_by_name(value: float) -> None:
    kept = OnDisk()
    with pytest.raises(InputError, match="not finite in float16, for the text 'dogs bark'"):
        kept["dogs bark"] = torch.tensor([1.0, value])
    assert "dogs bark" not in kept
