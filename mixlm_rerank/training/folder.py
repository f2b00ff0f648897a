"""The folder of a run: the inputs that it was begun with, arrays that are kept, and which of several processes writes.

Processes belong to one training (``torchrun``), or to concurrent runs that share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap
from transformers.utils import logging

from mixlm_rerank.data.lines import write_json
from mixlm_rerank.errors import InputError

__all__ = ["MODEL", "check_inputs", "content_of", "digest_of", "is_main_process", "join_processes", "kept_array"]
__all__ += ["locked", "on_main_process", "process_count", "under_torchrun"]

MODEL = "model"  # folder of the resulting model, in that of its training
INPUTS, LOCK = "inputs.json", "lock"
PATIENCE = timedelta(days=1)  # of processes that wait while the first ranks development queries, or a teacher reads

logger = logging.get_logger(__name__)


def check_inputs(folder: Path, inputs: Mapping[str, str]) -> None:
    """Record the inputs of a run in ``folder``, name -> value; raises InputError if it was begun with others.

    An empty value (``""``), for example of a checkpoint that no longer exists, is not compared.
    """
    path = folder / INPUTS
    begun: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = {name: value for name, value in inputs.items() if value}
    now["number of processes"] = str(process_count())  # with another number, a checkpoint stands for other steps
    changed = [name for name, value in now.items() if begun.get(name, value) != value]
    if changed:
        raise InputError(f"{folder} was begun with another {', '.join(changed)}: choose another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, begun | now)


def digest_of(*values: object) -> str:
    """Hash of values whose ``repr`` describes them fully, in 16 hexadecimal digits."""
    return hashlib.sha256(repr(values).encode("utf-8", "replace")).hexdigest()[:16]


def content_of(source: str | Path) -> str:
    """Hash of a file, or of all files of a folder, in 16 hexadecimal digits; empty for anything else."""
    path, parts = Path(source), hashlib.sha256()
    if not str(source) or not path.exists():
        return ""
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb") as file:
                parts.update(part.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return parts.hexdigest()[:16]


def kept_array(path: Path, shape: tuple[int, ...], made_of: Mapping[str, str]) -> np.memmap[Any, np.dtype[np.float32]]:
    """A float32 array in a file, to be filled over several runs: NaN where nothing is computed yet.

    ``made_of``: what its values come from, name -> hash. It is kept in a JSON file beside the array.

    Raises InputError if the file's values come from something else.
    """
    manifest = path.with_suffix(".json")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.tmp")
        empty = open_memmap(draft, mode="w+", dtype=np.float32, shape=shape)
        empty[:] = np.nan
        empty.flush()
        write_json(manifest, made_of)
        draft.replace(path)
    begun = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    if not begun.keys() >= made_of.keys():  # kept by an earlier version
        write_json(manifest, made_of)
        begun = made_of
    changed = " and another ".join(name for name, value in made_of.items() if begun.get(name) != value)
    found: np.memmap[Any, np.dtype[np.float32]] = np.load(path, mmap_mode="r+")
    if changed or found.shape != shape:
        what = changed or list(made_of)[-1]
        raise InputError(f"{path} holds values of another {what}: delete it, or name another file")
    return found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock ``folder``: a second process waits, then finds the first's results. A killed process releases its lock."""
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
    """Whether torchrun started this process, even as the only one."""
    return "LOCAL_RANK" in os.environ


def process_count() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that writes for all."""
    return os.environ.get("RANK", "0") == "0"


def join_processes(device: str | None = None) -> None:
    """Under torchrun: join the other processes and select this one's GPU, which "cuda" refers to from then on.

    Call this before any Trainer is made: a Trainer would limit waiting to half an hour.
    """
    if under_torchrun():
        PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=PATIENCE)


def on_main_process(make: Callable[[], object]) -> None:
    """Run ``make()`` in the first process while the others wait. Every process must call this."""
    if is_main_process():
        make()
    if under_torchrun():
        PartialState().wait_for_everyone()
