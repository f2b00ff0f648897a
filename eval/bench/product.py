"""What this machine can do at best: the rate of a large matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from mixlm_rerank.eval.bench.cells import Cells

__all__ = ["keep_rate", "kept_rates", "matrix_rate"]

SIZES = (512, 1024, 2048)
PRODUCT = "matrix product"


def matrix_rate(
    *,
    sizes: Sequence[int] = SIZES,
    rounds: int = 3,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Floating-point operations a second of ``torch.mm``, at the size that suits the machine best.

    The median of the rounds of each size (square matrices of random numbers), the highest of the sizes.
    """
    return max(_rate(size, rounds, device, dtype, clock) for size in sizes)


@torch.inference_mode()
def _rate(size: int, rounds: int, device: str, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    a, b, out = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(3))
    torch.mm(a, b, out=out)  # warm-up
    taken = []
    for _ in range(rounds):
        _wait(device)
        started = clock()
        torch.mm(a, b, out=out)
        _wait(device)
        taken.append(clock() - started)
    return 2 * size**3 / max(median(taken), 1e-9)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def keep_rate(kept: Cells, **of: Any) -> float:
    """Measure once more, at the start and at the end of a run, say. Floating-point operations a second.

    ``of``: see :func:`matrix_rate`.
    """
    rate = matrix_rate(**of)
    kept.keep(f"{PRODUCT} {len(kept_rates(kept.kept)) + 1}", rate)
    return rate


def kept_rates(kept: Mapping[str, Any]) -> list[float]:
    """All measurements, the first ones first."""
    return [float(rate) for cell, rate in kept.items() if cell.startswith(PRODUCT)]
