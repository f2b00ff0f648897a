"""Several processes: those of one training (``torchrun``), and runs side by side that share a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from transformers.utils import logging

__all__ = ["is_main_process", "join_processes", "locked", "on_main_process", "process_count", "under_torchrun"]

LOCK = "lock"
PATIENCE = timedelta(days=1)  # while the first one ranks development queries, or a teacher reads

logger = logging.get_logger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Whoever comes second waits, and then finds made what the first has made. A killed process lets go by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning(f"waiting for another process that is preparing {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def under_torchrun() -> bool:
    """Whether this process was started by torchrun, be it alone."""
    return "LOCAL_RANK" in os.environ


def process_count() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def join_processes(device: str | None = None) -> None:
    """Under torchrun: find the others, and take a GPU of one's own, which "cuda" means from now on.

    To be called before any Trainer is made: it would have the others wait for half an hour at most.
    """
    if under_torchrun():
        PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=PATIENCE)


def on_main_process(make: Callable[[], object]) -> None:
    """``make()`` by the first process; the others wait for it. Every one of them has to call this."""
    if is_main_process():
        make()
    if under_torchrun():
        PartialState().wait_for_everyone()
