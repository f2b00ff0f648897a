"""Work in a process of its own, whose memory is that of the work alone; and how much private memory work takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from mixlm_rerank.errors import MixLMError, optional_import

with optional_import("benchmarks measure memory with psutil", "bench"):
    import psutil

__all__ = ["apart", "private", "private_growth", "resident"]

EVERY = 0.005  # seconds


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """``work(*arguments)`` in a fresh process; what it raises is raised here. MixLMError if the process dies."""
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
    before, done = private(), threading.Event()
    most = before or 0

    def watch() -> None:
        nonlocal most
        while not done.wait(EVERY):
            most = max(most, private() or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return None if before is None else max(most, private() or 0) - before
