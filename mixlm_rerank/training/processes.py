"""Several processes: those of one training (``torchrun``), and runs side by side that share a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from transformers.utils import logging

__all__ = ["once", "one_at_a_time", "own_gpu"]

LOCK = "lock"

logger = logging.get_logger(__name__)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
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


def once(make: Callable[[], object]) -> None:
    """``make()`` by the first process of a training; the others wait for it. All are to call this, once they train."""
    state = PartialState()
    if state.is_main_process:
        make()
    state.wait_for_everyone()


def own_gpu() -> None:
    """Under torchrun each process of a machine works on a GPU of its own: what "cuda" means from now on."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
