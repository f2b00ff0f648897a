"""The token index by itself: fetching against a bare memory map, opening, memory and disk, as the corpus grows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank import numbers
from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench import memory
from mixlm_rerank.eval.bench.kit import Run, column, quartiles, table
from mixlm_rerank.eval.bench.plots import Panel, draw
from mixlm_rerank.eval.bench.synthetic import docid, index_bytes, random_docids, random_index
from mixlm_rerank.eval.bench.timing import Entrant, spread
from mixlm_rerank.index import Quantiser, TokenIndex
from mixlm_rerank.index.manifest import Manifest
from mixlm_rerank.index.segments import Segments

__all__ = ["store"]

INDEX, BARE = "token index", "bare memory map and a dict"
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
FETCH = 1000  # documents at once
QUANTISER = Quantiser("int8", 4, 384)  # tokens of a document, and their dimensions
ROWS = Segments.rows_per_segment(QUANTISER.record_bytes)
MANIFEST = Manifest("0" * 16, "none", QUANTISER.tokens, QUANTISER.dim, QUANTISER.precision, "random", ROWS)
COLUMNS = {
    "documents": column(numbers.count, "documents"),
    "ms a fetch": column(numbers.milliseconds, "milliseconds", INDEX, "median"),
    "quartiles": column(quartiles, "milliseconds", INDEX),
    "bare map, ms": column(numbers.milliseconds, "milliseconds", BARE, "median"),
    "ratio": column("{:.2f}".format, "over_bare"),
    "open, ms": column(lambda seconds: numbers.milliseconds(1e3 * seconds), "open_seconds"),
    "memory after open": column(numbers.size, "open_memory"),
    "memory while writing": column(numbers.size, "writing_memory"),
    "documents/s written": column(numbers.speed, "documents_per_second"),
    "on disk": column(numbers.size, "disk"),
    "over payload": column("{:.3f}".format, "over_payload"),
}


def store(folder: Path, *, largest: int = 1_000_000, rounds: int = 41, quiet: bool = True) -> str:
    """Measure the sizes that ``folder`` lacks, up to ``largest``; write and return the page.

    ``rounds``: fetches timed, each of other documents. Indexes are deleted as they are done with. Raises InputError if
    the disk has no room, MixLMError if an index gives other bytes than the bare map.
    """
    with Run(folder, None, quiet, fetch=FETCH, rounds=rounds) as run:
        for size in sorted({min(size, largest) for size in SIZES}):
            run.cell(f"{size} documents", partial(_measured, run, size, rounds))
        return _page(run)


def _measured(run: Run, documents: int, rounds: int) -> dict[str, Any]:
    place, joined = run.folder / "index", run.folder / "bare.bin"
    shutil.rmtree(place, ignore_errors=True)  # half written: its seconds are unknown
    run.say(f"{numbers.count(documents)} documents, {numbers.size(index_bytes(MANIFEST, documents))}")
    try:
        found = {**memory.apart(writing, place, documents), **memory.apart(opening, place)}
        index, draw = TokenIndex(place), Random(0)
        bare = _bare(place, documents, joined)
        drawn = [random_docids(min(FETCH, documents), documents, draw) for _ in range(rounds + 1)]
        for docids in drawn[:3]:
            if not np.array_equal(index.fetch(docids).tokens, bare(docids)):
                raise MixLMError("the index gives other tokens than its own file")
        fetches: dict[str, Callable[[Sequence[str]], object]] = {INDEX: index.fetch, BARE: bare}
        entrants = [Entrant(name, [partial(fetch, docids) for docids in drawn]) for name, fetch in fetches.items()]
        taken = run.timed("fetch", entrants, rounds=rounds)
        sizes = {"payload": documents * QUANTISER.record_bytes, "disk": index.info().bytes}
        return {"documents": documents, "seconds": taken, **found, **sizes}
    finally:
        shutil.rmtree(place, ignore_errors=True)
        joined.unlink(missing_ok=True)


def writing(place: Path, documents: int) -> dict[str, float | None]:
    """Write an index. Returns seconds, and the most private memory while at it, beyond that before."""
    started = time.perf_counter()
    growth = memory.private_growth(lambda: random_index(place, MANIFEST, documents))
    return {"writing_seconds": time.perf_counter() - started, "writing_memory": growth}


def opening(place: Path) -> dict[str, float]:
    """Open an index. Returns seconds, and the private memory that it takes."""
    before, started = memory.private() or 0, time.perf_counter()
    index = TokenIndex(place)
    seconds = time.perf_counter() - started
    taken = (memory.private() or 0) - before
    del index
    return {"open_seconds": seconds, "open_memory": taken}


def _bare(place: Path, documents: int, joined: Path) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """What one would write who needs no updates and no crash safety: one file, and docid -> row in memory."""
    files = sorted(place.glob("tokens-*.bin"))
    if len(files) > 1:
        with joined.open("wb") as whole:
            for file in files:
                whole.write(np.memmap(file, np.uint8, mode="r").data)
        files = [joined]
    records = np.memmap(files[0], np.uint8, mode="r").reshape(-1, QUANTISER.record_bytes)
    rows = {docid(row): row for row in range(documents)}
    return lambda docids: QUANTISER.unpack(records[[rows[name] for name in docids]])


def _page(run: Run) -> str:
    points = []
    for cell in sorted(run.kept.values(), key=lambda cell: int(cell["documents"])):
        milliseconds = {name: spread(seconds, 1e3) for name, seconds in cell.pop("seconds").items()}
        derived = {
            "milliseconds": milliseconds,
            "over_bare": milliseconds[INDEX]["median"] / milliseconds[BARE]["median"],
            "over_payload": cell["disk"] / cell["payload"],
            "documents_per_second": cell["documents"] / cell["writing_seconds"],
        }
        points.append({"name": str(cell["documents"]), **cell, **derived})
    lines = {name: {point["documents"]: point["milliseconds"][name] for point in points} for name in (INDEX, BARE)}
    up = f"milliseconds for {FETCH:,} documents"
    draw(run.folder / "fetch.png", Panel("documents in the index", up, lines, level=True))
    said = (
        f"A fetch is of {FETCH:,} random documents, {QUANTISER.tokens} tokens of {QUANTISER.dim} dimensions each, int8 "
        "to float32, out of the page cache. The bare map and its dict hold the same records, without updates or crash "
        "safety. Memory is private, beyond that before."
    )
    return run.page("The token index by itself", "none", {"points": points}, [said, table(COLUMNS, points)])
