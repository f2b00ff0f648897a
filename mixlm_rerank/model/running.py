"""How a model runs: mode and dtype, positions per forward pass, and the transfer of inputs to its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["bf16_pays", "inference", "joined", "moved", "of_like_length", "parameter_dtype", "positions_per_forward"]
__all__ += ["weights_to"]

ON_CPU, ON_GPU = 4096, 32_768  # positions in a forward pass: on a CPU about 100 MB for 22 M-parameter backbones


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Without dropout, autocast and gradients, which would make scores random or coarse. Restores the modes at the end.

    Only one thread at a time may use a model in training mode: all threads share its mode.
    """
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    device = next(module.parameters()).device.type
    try:
        with torch.inference_mode(), torch.autocast(device, enabled=False):
            yield
    finally:
        for part in training:
            part.training = True


def positions_per_forward(device: torch.device, on_cpu: int = ON_CPU) -> int:
    """Positions per forward pass: many, to fill a GPU; on a CPU throughput is flat beyond a few thousand."""
    return on_cpu if device.type == "cpu" else ON_GPU


def of_like_length(texts: Sequence[Sized], device: torch.device, beside: int = 0) -> Iterator[list[int]]:
    """Row numbers of texts for one forward pass after another, longest first; a pass pads to its longest text.

    ``texts``: token ids, or states. ``beside``: extra positions per text.
    """
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    positions = positions_per_forward(device)
    while order:
        size = max(1, positions // (len(texts[order[0]]) + beside))
        yield order[:size]
        order = order[size:]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``. Copies to a GPU are asynchronous: from pinned memory, in stream order."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def joined(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """The parts concatenated, as ``moved(torch.cat(parts), device)`` with one copy less."""
    if device.type != "cuda" or any(part.device.type != "cpu" for part in parts):
        return moved(torch.cat(list(parts)), device)
    count = sum(len(part) for part in parts)
    pinned = torch.empty(count, *parts[0].shape[1:], dtype=parts[0].dtype, pin_memory=True)
    torch.cat(list(parts), out=pinned)
    return pinned.to(device, non_blocking=True)


def parameter_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """``"float32"`` -> torch.float32. Raises InputError for all but float32, bfloat16 and float16."""
    if name is None:
        return None
    plain = str(name).removeprefix("torch.")
    if plain not in ("float32", "bfloat16", "float16"):
        raise InputError(f"dtype must be float32, bfloat16, float16 or (of a MixLM on a CPU) int8, not {name!r}")
    return cast(torch.dtype, getattr(torch, plain))


def weights_to(module: nn.Module, dtype: torch.dtype) -> None:
    """Change the weights' dtype in place. Buffers keep theirs: rounded rotary frequencies give other positions."""
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)


def bf16_pays(device: torch.device | str | None = None) -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware (AVX-512 BF16, AMX, Arm's BF16; any recent GPU).

    Without that, PyTorch computes them ten and more times slower than float32 (seen on an EPYC with AVX2: 17 against
    177 GFLOPS). ``device``: None is a GPU if there is one.
    """
    if torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if hasattr(torch.cpu, "get_capabilities"):
        return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
