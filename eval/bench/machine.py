"""The machine's capacity and the cost of work: floating-point operations, time, memory, separate processes.

Operations are counted for linear layers and attention, a multiply-add as two. Embeddings, norms, softmax, activations
and rotary positions are left out (about a hundredth). Attention is counted without masks, as libraries compute it:
every position against every key in its input.
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

KINDS = {  # kinds of GPU kernels, and patterns of their names
    "matrix products": r"gemm|cutlass|nvjet|xmma|wgmma|gemv|splitK",
    "attention": r"attend_tiles",
    "between (compiled)": r"^triton_",
    "copies": r"memcpy|memset",
    "other": "",
}
EVERY = 0.005  # seconds between samples of the memory


@dataclass(frozen=True)
class Operations:
    """Operations of a transformer's layer: ``linear`` per position, ``pair`` per pair of query and key positions."""

    layers: int
    linear: float
    pair: float

    @classmethod
    def of(cls, backbone: Any) -> Operations:
        """For a backbone whose layers are alike and use every weight at every position (no mixture of experts)."""
        config = backbone.config
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        stack = max((part for part in backbone.modules() if isinstance(part, nn.ModuleList)), key=len)
        weights = sum(part.weight.numel() for part in stack.modules() if isinstance(part, nn.Linear))
        return cls(layers, 2 * weights / layers, 4 * heads * head)

    def whole(self, length: int, sequences: int = 1) -> float:
        """Operations for sequences of ``length`` positions, prefix included: full text, or MixLM without sharing."""
        return self.layers * sequences * (length * self.linear + length**2 * self.pair)

    def shared(self, prefix: int, item: int, items: int) -> float:
        """Operations for one prefix and items of ``item`` positions that attend to it and themselves (MixLM: k + 1).

        Every position is counted in every layer: a pass that skips unread positions of the last layer does less.
        """
        own = item * self.linear + item * (prefix + item) * self.pair
        return self.whole(prefix) + self.layers * items * own


def matrix_rate(
    sizes: Sequence[int] = (512, 1024, 2048), device: str = "cpu", dtype: torch.dtype = torch.float32
) -> float:
    """Floating-point operations a second of ``torch.mm`` on square matrices, at the best of ``sizes``."""
    rates = []
    for size in sizes:
        a, b, out = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(3))
        given = {"torch": torch, "a": a, "b": b, "out": out}
        timer = Timer("torch.mm(a, b, out=out)", globals=given, num_threads=torch.get_num_threads())
        rates.append(2 * size**3 / timer.blocked_autorange(min_run_time=0.3).median)
    return max(rates)


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``work(*arguments)`` in a fresh process, whose memory is then the work's only; its errors are raised here.

    Raises MixLMError if the process dies.
    """
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    except BrokenProcessPool:
        raise MixLMError(f"the process for {work.__name__!r} died: is there enough memory?") from None


def resident(pid: int | None = None) -> int:
    """Resident memory of a process in bytes, by default of this one."""
    return int(psutil.Process(pid).memory_info().rss)


def private() -> int | None:
    """Bytes of private memory of this process (no file behind it); None where they are not reported (not Linux)."""
    found = psutil.Process().memory_info()
    return int(found.rss - found.shared) if hasattr(found, "shared") else None


def private_growth(work: Callable[[], object]) -> int | None:
    """Peak private bytes while ``work`` runs, minus those before; sampled every 5 ms. None if they are not reported."""
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
    """Shares of a query's time by part; medians over ``runs``, whose own times are not reported.

    Returns:
        ``ranker``: in :meth:`Ranker.forward_packed`. ``query``: in :meth:`ItemEncoder.query_states`, which the residual
        needs. ``rest``: fetching, tokenising, sorting, Python. None if the packed pass did not run.
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
        vars(ranker)["forward_packed"] = watched("ranker", ranker.forward_packed)  # shadows the class's method
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
    """Milliseconds per round: GPU time by kind of kernel, and wall clock; ``run`` must leave its results on the CPU."""
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
