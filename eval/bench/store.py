"""The token index by itself: fetching against a bare memory map, opening, memory and disk, as the corpus grows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank import numbers
from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench.cells import Cells, conditions
from mixlm_rerank.eval.bench.stores import docid, index_bytes, random_docids
from mixlm_rerank.eval.bench.timing import Entrant, interleaved, turns_bar
from mixlm_rerank.index import Quantiser, TokenIndex
from mixlm_rerank.index.manifest import Manifest
from mixlm_rerank.index.segments import Segments

__all__ = ["BARE", "INDEX", "StoreOptions", "cell_of", "measure_store"]

INDEX, BARE = "token index", "bare memory map and a dict"
BARE_FILE = "bare.bin"


@dataclass(frozen=True)
class StoreOptions:
    """Attributes:
    documents: sizes of the index.
    tokens, dim: of a document, stored as int8.
    fetch: documents at once.
    rounds: fetches timed, each of other documents.
    """

    documents: tuple[int, ...] = (10_000, 30_000, 100_000, 300_000, 1_000_000)
    tokens: int = 4
    dim: int = 384
    fetch: int = 1000
    rounds: int = 41


def cell_of(documents: int) -> str:
    return f"{documents} documents"


def measure_store(
    folder: Path,
    options: StoreOptions = StoreOptions(),
    *,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """A cell for each size; only those are measured that ``folder`` lacks. Indexes are deleted as they are done with.

    Raises InputError if the disk has no room, MixLMError if an index gives other bytes than the bare map.
    """
    settings = {"tokens": options.tokens, "dim": options.dim, "fetch": options.fetch, "rounds": options.rounds}
    kept = Cells(folder, conditions(None, **settings))
    try:
        for size in options.documents:
            if cell_of(size) not in kept.kept:
                place = folder / "index"
                shutil.rmtree(place, ignore_errors=True)  # half written: its seconds are unknown
                say(f"{folder}: {numbers.count(size)} documents, {numbers.size(index_bytes(_manifest(options), size))}")
                kept.keep(cell_of(size), _measured(place, size, options, progress))
                shutil.rmtree(place)
                (folder / BARE_FILE).unlink(missing_ok=True)
        return kept.kept
    finally:
        kept.close()


def _measured(place: Path, documents: int, options: StoreOptions, progress: bool) -> dict[str, Any]:
    written = _apart("writing", str(place), str(documents), str(options.tokens), str(options.dim))
    opened = _apart("opening", str(place))
    index = TokenIndex(place)
    bare = _Bare(place, documents, options)
    draw = Random(0)
    drawn = [random_docids(min(options.fetch, documents), documents, draw) for _ in range(options.rounds + 1)]
    for docids in drawn[:3]:
        if not np.array_equal(index.fetch(docids).tokens, bare.fetch(docids)):
            raise MixLMError("the index gives other tokens than its own file")
    entrants = [
        Entrant(name, partial(_nth, fetch, drawn), partial(fetch, drawn[-1]))
        for name, fetch in ((INDEX, index.fetch), (BARE, bare.fetch))
    ]
    with turns_bar(len(entrants), options.rounds, enabled=progress) as told:
        taken = interleaved(entrants, rounds=options.rounds, seconds=float("inf"), told=told)
    payload = documents * bare.quantiser.record_bytes
    return {
        "documents": documents,
        "seconds": taken,
        **written,
        **opened,
        "payload": payload,
        "disk": index.info().bytes,
    }


class _Bare:
    """What one would write who needs no updates and no crash safety: one file, and docid -> row in memory."""

    def __init__(self, place: Path, documents: int, options: StoreOptions) -> None:
        self.quantiser = Quantiser("int8", options.tokens, options.dim)
        size = self.quantiser.record_bytes
        files = sorted(place.glob("tokens-*.bin"))
        maps = [np.memmap(file, np.uint8, mode="r").reshape(-1, size) for file in files]
        self._records = maps[0] if len(maps) == 1 else _joined(place.parent / BARE_FILE, maps)
        self._rows = {docid(row): row for row in range(documents)}

    def fetch(self, docids: Sequence[str]) -> NDArray[np.float32]:
        return self.quantiser.unpack(self._records[[self._rows[name] for name in docids]])


def _joined(path: Path, maps: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    with path.open("wb") as file:
        for each in maps:
            file.write(each.data)
    return np.memmap(path, np.uint8, mode="r").reshape(-1, maps[0].shape[1])


def _nth(fetch: Callable[[Sequence[str]], object], drawn: Sequence[Sequence[str]], number: int) -> object:
    return fetch(drawn[number])


def _manifest(options: StoreOptions) -> Manifest:
    size = Quantiser("int8", options.tokens, options.dim).record_bytes
    return Manifest("0" * 16, "none", options.tokens, options.dim, "int8", "random", Segments.rows_per_segment(size))


def _apart(task: str, *arguments: str) -> dict[str, Any]:
    """What a fresh process found: its memory is that of the task alone."""
    done = subprocess.run([sys.executable, "-m", f"{__name__}_apart", task, *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MixLMError(f"the process for {task} the index failed: {last}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
