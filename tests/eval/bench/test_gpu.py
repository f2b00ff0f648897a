"""The GPU benchmark's own code, at a toy size on the CPU; what it says without a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.eval.bench.gpu import gpu, mixlm_name
from mixlm_rerank.eval.bench.synthetic import DecoderShape, saved_mixlm

SHAPE = DecoderShape(layers=2, hidden=32, heads=2, key_heads=1, head=16)
TINY: dict[str, Any] = {
    "shape": SHAPE,
    "training": {"queries": 2, "candidates": 2, "document": 20, "steps": 1},
    "budgets": (1, 3),
    "queries": (1, 3),
    "items": (4,),
    "documents": (20,),
    "seconds": 0.01,
    "matrix": 64,
}


def test_every_cell_is_measured_once_and_reported(tmp_path: Path) -> None:
    page = gpu(tmp_path, device="cpu", **TINY)
    found = json.loads((tmp_path / "results.json").read_text())
    names = [mixlm_name(k, *call) for k in (1, 3) for call in ((1, 4), (3, 4), (3, 4, 2))]
    names += [f"full text of 20 tokens, prefix {prefix}" for prefix in ("for each", "once")]
    assert [row["name"] for row in found["rows"]] == names and all(name in page for name in names)
    assert all(
        row["items_per_second"] > 0 and row["milliseconds"][0] <= row["milliseconds"][1] for row in found["rows"]
    )
    assert found["sameness"]["float32"] < 1e-4 and found["training"]["tokens_per_second"] > 0
    assert set(found["kernels"]) == {mixlm_name(1, 3, 4)}
    before = (tmp_path / "cells.jsonl").read_text().splitlines()
    gpu(tmp_path, device="cpu", **TINY)
    again = [line for line in (tmp_path / "cells.jsonl").read_text().splitlines() if line not in before]
    assert {json.loads(line)["cell"].split(" ")[0] for line in again} - {"sameness"} == {"matrix"}


def test_the_shape_can_be_saved_for_a_server(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / ".saving").mkdir(parents=True)  # of a run that was interrupted
    for _ in range(2):
        model = MixLM.from_pretrained(str(saved_mixlm(folder, SHAPE)))
        assert model.config.tokens == 1 and model.ranker.hidden_size == SHAPE.hidden


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(mixlm: Callable[..., object], tmp_path: Path) -> None:
    done = mixlm(f"bench gpu --output {tmp_path / 'out'}")
    assert (done.code, done.out) == (2, "") and "there is no GPU here" in done.err  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()
