"""The folder of a run: what it was begun with, and which of several processes writes there.

Processes are those of one training (``torchrun``), or runs side by side that share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from transformers.utils import logging

from mixlm_rerank.data.lines import write_json
from mixlm_rerank.errors import InputError

__all__ = ["MODEL", "check_inputs", "content_of", "digest_of", "is_main_process", "join_processes", "locked"]
__all__ += ["on_main_process", "process_count", "under_torchrun"]

MODEL = "model"  # the folder of what comes out, in that of its training
INPUTS, LOCK = "inputs.json", "lock"
PATIENCE = timedelta(days=1)  # while the first one ranks development queries, or a teacher reads

logger = logging.get_logger(__name__)


def check_inputs(folder: Path, inputs: Mapping[str, str]) -> None:
    """Keep what a run in ``folder`` depends on, by name; raises InputError if it was begun with something else.

    Nothing (``""``) is not held against anything: a checkpoint that is no longer there, say.
    """
    path = folder / INPUTS
    begun: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = {name: value for name, value in inputs.items() if value}
    now["number of processes"] = str(process_count())  # a checkpoint of another number of them stands for other steps
    changed = [name for name, value in now.items() if begun.get(name, value) != value]
    if changed:
        raise InputError(f"{folder} was begun with another {', '.join(changed)}: choose another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, begun | now)


def digest_of(*values: object) -> str:
    """Hash of values that say all of themselves, in 16 hexadecimal digits."""
    return hashlib.sha256(repr(values).encode("utf-8", "replace")).hexdigest()[:16]


def content_of(source: str | Path) -> str:
    """Hash of a file, or of all files of a folder, in 16 hexadecimal digits; nothing for what is neither."""
    path, parts = Path(source), hashlib.sha256()
    if not str(source) or not path.exists():
        return ""
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb") as file:
                parts.update(part.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return parts.hexdigest()[:16]


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
