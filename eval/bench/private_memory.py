"""Memory that a process shares with no other and no file (Linux: RssAnon)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["most_private_memory", "private_memory"]

STATUS = Path("/proc/self/status")
EVERY = 0.005  # seconds


def private_memory() -> int:
    """Bytes now; 0 where the system does not tell."""
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


@contextmanager
def most_private_memory() -> Iterator[list[int]]:
    """The most bytes while this is open, looked at every 5 ms: the list's one number."""
    most, done = [private_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            most[0] = max(most[0], private_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
        most[0] = max(most[0], private_memory())
