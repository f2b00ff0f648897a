"""bfloat16 is used where the processor multiplies it by itself, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.running import bf16_pays, parameter_dtype
from mixlm_rerank.scoring import SharedPrefixScorer
from mixlm_rerank.training.stage_trainer import training_arguments


@pytest.mark.parametrize(
    ("capabilities", "pays"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_a_processor_says_whether_bf16_pays(
    capabilities: dict[str, bool], pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bf16_pays() is pays
    assert training_arguments(TrainingArguments, {"bf16": True}).bf16 is pays
    assert training_arguments(TrainingArguments, {}).bf16 is False


def test_only_the_formats_that_we_serve_in_have_a_name() -> None:
    assert parameter_dtype(None) is None
    assert parameter_dtype("bfloat16") is parameter_dtype(torch.bfloat16) is torch.bfloat16
    with pytest.raises(InputError, match="float16 or .of a MixLM on a CPU. int8, not 'float8'"):
        parameter_dtype("float8")


def test_rotary_frequencies_are_never_rounded(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    model = tiny("qwen3")
    model.save_pretrained(tmp_path)
    half = MixLM.from_pretrained(tmp_path, device="cpu", dtype="bfloat16")
    assert half.ranker.dtype == torch.bfloat16
    (exact,), (kept,) = ([b for b in m.ranker.backbone.rotary_emb.buffers()][:1] for m in (model, half))
    assert torch.equal(kept, exact) and not torch.equal(exact, exact.bfloat16().float())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_a_model_that_is_made_half_is_as_one_loaded_so(
    tiny: Callable[..., MixLM], tmp_path: Path, architecture: str, dtype: str
) -> None:
    """Also inside another module: item encoder, readout and buffers stay float32."""
    tiny(architecture).save_pretrained(tmp_path)
    model, loaded = MixLM.from_pretrained(tmp_path), MixLM.from_pretrained(tmp_path, dtype=dtype)
    torch.nn.Sequential(model).to(getattr(torch, dtype))
    assert model.fingerprint == loaded.fingerprint
    tokens = torch.from_numpy(model.encode(["a dog", "bread"]))
    found, expected = (SharedPrefixScorer(one).score("a dog", tokens) for one in (model, loaded))
    assert torch.equal(found, expected)
