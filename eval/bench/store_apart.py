"""What :mod:`mixlm_rerank.eval.bench.store` asks of a process of its own.

``python -m mixlm_rerank.eval.bench.store_apart writing INDEX DOCUMENTS TOKENS DIM``, or ``opening INDEX``, prints one
line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from random import Random

from mixlm_rerank.eval.bench.stores import random_docids, random_index
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.manifest import Manifest
from mixlm_rerank.index.quantiser import Quantiser
from mixlm_rerank.index.segments import Segments

__all__ = ["opening", "writing"]


def writing(path: str, documents: str, tokens: str, dim: str) -> dict[str, float]:
    """Write an index. Returns seconds, and the most private memory while at it, beyond that before."""
    size = Quantiser("int8", int(tokens), int(dim)).record_bytes
    rows = Segments.rows_per_segment(size)
    manifest = Manifest("0" * 16, "none", int(tokens), int(dim), "int8", "random", rows)
    before, most, done = private_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most[0] = max(most[0], private_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    random_index(Path(path), manifest, int(documents))
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return {"writing_seconds": seconds, "writing_memory": max(most[0], before) - before}


def opening(path: str) -> dict[str, float]:
    """Open an index and fetch a document. Returns seconds of opening, and private memory before the fetch and after."""
    before = private_memory()
    started = time.perf_counter()
    index = TokenIndex(path)
    seconds = time.perf_counter() - started
    opened = private_memory()
    index.fetch(random_docids(min(1000, len(index)), len(index), Random(0)))
    return {
        "open_seconds": seconds,
        "open_memory": opened - before,
        "fetched_memory": private_memory() - before,
    }


def private_memory() -> int:
    """Bytes that this process shares with no other and no file (Linux: RssAnon)."""
    for line in Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    print(json.dumps(writing(*arguments) if task == "writing" else opening(*arguments)))
