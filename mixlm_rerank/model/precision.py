"""Number formats: which ones weights may have, and which ones pay."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ..errors import InputError

__all__ = ["bf16_pays", "parameter_dtype", "weights_to"]


def parameter_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """``"float32"`` -> torch.float32. Raises InputError for any but the three that weights have."""
    if name is None:
        return None
    plain = str(name).removeprefix("torch.")
    if plain not in ("float32", "bfloat16", "float16"):
        raise InputError(f"dtype must be float32, bfloat16, float16 or (of a MixLM on a CPU) int8, not {name!r}")
    return cast(torch.dtype, getattr(torch, plain))


def weights_to(module: nn.Module, dtype: torch.dtype) -> None:
    """Change the weights' dtype in place. Buffers stay: rotary frequencies, rounded, are other positions."""
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)


def bf16_pays(device: torch.device | str | None = None) -> bool:
    """Whether the processor multiplies bfloat16 matrices by itself (AVX-512 BF16, AMX, Arm's BF16; any recent GPU).

    Without, PyTorch computes them ten and more times slower than float32 (seen on an EPYC with AVX2: 17 against 177
    GFLOPS). ``device``: None is a GPU if there is one.
    """
    if torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if hasattr(torch.cpu, "get_capabilities"):
        return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
