"""What this machine can do and what work takes of it: floating-point operations, memory, a process of its own.

Counted are linear layers and attention, a multiply-add as two operations. Left out: embeddings, norms, softmax,
activations, rotary positions (about a hundredth). Attention is counted without masks: every position against every key
that is laid before it, as libraries compute it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

from mixlm_rerank.errors import MixLMError, optional_import
from mixlm_rerank.model import MixLM

with optional_import("benchmarks measure memory with psutil", "bench"):
    import psutil

__all__ = ["Operations", "apart", "kernel_shares", "matrix_rate", "private", "private_growth", "resident", "shares"]

KINDS = {  # of kernels on a GPU, by their names
    "matrix products": r"gemm|cutlass|nvjet|xmma|wgmma|gemv|splitK",
    "attention": r"attend_tiles",
    "between (compiled)": r"^triton_",
    "copies": r"memcpy|memset",
    "other": "",
}
EVERY = 0.005  # seconds between two looks at the memory


@dataclass(frozen=True)
class Operations:
    """Of a transformer: ``linear`` of a position in a layer, ``pair`` of a query and a key in a layer."""

    layers: int
    linear: float
    pair: float

    @classmethod
    def of(cls, backbone: Any) -> Operations:
        """Of a transformer whose layers are alike and use every weight at every position (no mixture of experts)."""
        config = backbone.config
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        stack = max((part for part in backbone.modules() if isinstance(part, nn.ModuleList)), key=len)
        weights = sum(part.weight.numel() for part in stack.modules() if isinstance(part, nn.Linear))
        return cls(layers, 2 * weights / layers, 4 * heads * head)

    def whole(self, length: int, sequences: int = 1) -> float:
        """Sequences of ``length`` positions, each with its own prefix: full text, or MixLM without prefix sharing."""
        return self.layers * sequences * (length * self.linear + length**2 * self.pair)

    def shared(self, prefix: int, item: int, items: int) -> float:
        """A prefix once, and items of ``item`` positions that see it and themselves: MixLM (item = k + 1).

        Every position through every layer: a pass that leaves out what has no reader in the last one does less.
        """
        own = item * self.linear + item * (prefix + item) * self.pair
        return self.whole(prefix) + self.layers * items * own


def matrix_rate(
    sizes: Sequence[int] = (512, 1024, 2048), device: str = "cpu", dtype: torch.dtype = torch.float32
) -> float:
    """Floating-point operations a second of ``torch.mm`` of square matrices, at the best of the sizes."""
    rates = []
    for size in sizes:
        a, b, out = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(3))
        given = {"torch": torch, "a": a, "b": b, "out": out}
        timer = Timer("torch.mm(a, b, out=out)", globals=given, num_threads=torch.get_num_threads())
        rates.append(2 * size**3 / timer.blocked_autorange(min_run_time=0.3).median)
    return max(rates)


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """``work(*arguments)`` in a fresh process, whose memory is that of the work alone; what it raises is raised here.

    Raises MixLMError if the process dies.
    """
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    except BrokenProcessPool:
        raise MixLMError(f"the process for {work.__name__!r} died: is there enough memory?") from None


def resident(pid: int | None = None) -> int:
    """Bytes of memory of a process, by default this one."""
    return int(psutil.Process(pid).memory_info().rss)


def private() -> int | None:
    """Bytes that this process has to itself, with no file behind them; None where the system (not Linux) is silent."""
    found = psutil.Process().memory_info()
    return int(found.rss - found.shared) if hasattr(found, "shared") else None


def private_growth(work: Callable[[], object]) -> int | None:
    """Most private bytes while ``work`` runs, beyond those before; at every 5 ms. None if the system is silent."""
    seen, done = [private() or 0], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            seen.append(private() or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    last = private()
    return None if last is None else max(*seen, last) - seen[0]


def shares(
    model: MixLM, runs: Sequence[Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float] | None:
    """Where a query's time goes, as shares of it; medians over some runs, which are none of those that are reported.

    Returns:
        ``ranker``: in :meth:`Ranker.forward_packed`. ``query``: in :meth:`ItemEncoder.query_states`, which the residual
        needs. ``rest``: fetching, tokenising, sorting, Python. None if the packed pass was not what ran.
    """
    ranker, encoder, found = model.ranker, model.item_encoder, []

    def watched(part: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            result = original(*args, **kwargs)
            inside[part] += clock() - started
            return result

        return timed

    for run in runs:
        inside = {"ranker": 0.0, "query": 0.0}
        vars(ranker)["forward_packed"] = watched("ranker", ranker.forward_packed)  # hides the class's own on this one
        vars(encoder)["query_states"] = watched("query", encoder.query_states)
        try:
            started = clock()
            run()
            whole = clock() - started
        finally:
            del vars(ranker)["forward_packed"], vars(encoder)["query_states"]
        if not inside["ranker"]:
            return None
        found.append({part: seconds / whole for part, seconds in inside.items()})
    medians = {part: median(each[part] for each in found) for part in inside}
    return {**medians, "rest": max(0.0, 1 - sum(medians.values()))}


def kernel_shares(run: Callable[[], object], rounds: int = 3) -> dict[str, Any]:
    """Milliseconds a round on the GPU by kind of kernel, and of the clock; ``run`` ends with its results on the CPU."""
    run()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        started = time.perf_counter()
        for _ in range(rounds):
            run()
        clock = (time.perf_counter() - started) / rounds
    kinds = dict.fromkeys(KINDS, 0.0)
    for event in found.events() or ():
        if str(event.device_type).endswith("CUDA"):
            kind = next(kind for kind, names in KINDS.items() if re.search(names, event.name, re.IGNORECASE))
            kinds[kind] += event.time_range.elapsed_us() / 1e3 / rounds
    return {"clock": 1e3 * clock, "kinds": kinds}
