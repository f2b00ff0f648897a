"""How much private memory a piece of work takes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mixlm_rerank.systems.machine import private_memory

__all__ = ["private_growth"]

EVERY = 0.005  # seconds


def private_growth(work: Callable[[], object]) -> int | None:
    """Most private bytes while ``work`` runs, beyond those before; at every 5 ms. None if the system is silent."""
    before = private_memory()
    if before is None:
        work()
        return None
    most, done = [before], threading.Event()

    def look() -> None:
        most.append(max(most.pop(), private_memory() or 0))

    def watch() -> None:
        while not done.wait(EVERY):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    look()
    return most[0] - before
