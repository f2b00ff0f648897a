"""Where a GPU's time goes, by kind of kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

__all__ = ["KINDS", "kernel_shares", "kind_of"]

KINDS = {
    "matrix products": r"gemm|cutlass|nvjet|xmma|wgmma|gemv|splitK",
    "attention": r"attend_tiles",
    "between (compiled)": r"^triton_",
    "copies": r"memcpy|memset",
}
OTHER = "other"


def kind_of(kernel: str) -> str:
    """
    >>> kind_of("nvjet_tst_128x256_64x4"), kind_of("triton_red_fused_mul_3"), kind_of("CatArrayBatchedCopy")
    ('matrix products', 'between (compiled)', 'other')
    """
    return next((kind for kind, names in KINDS.items() if re.search(names, kernel, re.IGNORECASE)), OTHER)


def kernel_shares(run: Callable[[], object], rounds: int = 3) -> dict[str, Any]:
    """Milliseconds a round on the GPU by kind, and of the clock; ``run`` must end with its results on the CPU."""
    run()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        started = time.perf_counter()
        for _ in range(rounds):
            run()
        seconds = (time.perf_counter() - started) / rounds
    kinds: dict[str, float] = dict.fromkeys([*KINDS, OTHER], 0.0)
    names: dict[str, float] = {}
    for event in found.events() or ():
        if str(event.device_type).endswith("CUDA"):
            taken = event.time_range.elapsed_us() / 1e3 / rounds
            kinds[kind_of(event.name)] += taken
            names[event.name] = names.get(event.name, 0.0) + taken
    longest = sorted(names.items(), key=lambda pair: -pair[1])[:12]
    return {"clock": 1e3 * seconds, "kinds": kinds, "longest": {name[:80]: taken for name, taken in longest}}
