"""What :mod:`mixlm_rerank.eval.bench.store` asks of a process of its own.

``python -m mixlm_rerank.eval.bench.store_apart writing INDEX DOCUMENTS TOKENS DIM``, or ``opening INDEX``, prints one
line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from random import Random

from mixlm_rerank.eval.bench.private_memory import private_growth
from mixlm_rerank.eval.bench.stores import random_docids, random_index
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.manifest import Manifest
from mixlm_rerank.index.quantiser import Quantiser
from mixlm_rerank.index.segments import Segments
from mixlm_rerank.systems.machine import private_memory

__all__ = ["opening", "writing"]


def writing(path: str, documents: str, tokens: str, dim: str) -> dict[str, float | None]:
    """Write an index. Returns seconds, and the most private memory while at it, beyond that before."""
    size = Quantiser("int8", int(tokens), int(dim)).record_bytes
    rows = Segments.rows_per_segment(size)
    manifest = Manifest("0" * 16, "none", int(tokens), int(dim), "int8", "random", rows)
    started = time.perf_counter()
    growth = private_growth(lambda: random_index(Path(path), manifest, int(documents)))
    return {"writing_seconds": time.perf_counter() - started, "writing_memory": growth}


def opening(path: str) -> dict[str, float | None]:
    """Open an index and fetch a document. Returns seconds of opening, and private memory before the fetch and after."""
    before = private_memory() or 0
    started = time.perf_counter()
    index = TokenIndex(path)
    seconds = time.perf_counter() - started
    opened = private_memory() or 0
    index.fetch(random_docids(min(1000, len(index)), len(index), Random(0)))
    return {
        "open_seconds": seconds,
        "open_memory": opened - before,
        "fetched_memory": (private_memory() or 0) - before,
    }


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    print(json.dumps(writing(*arguments) if task == "writing" else opening(*arguments)))
