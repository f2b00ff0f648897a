"""How MixLM's latency grows: with candidates, with the size of the corpus, with prefix and document length."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mixlm_rerank.eval.bench.cells import Cells, conditions
from mixlm_rerank.eval.bench.curves import Curves
from mixlm_rerank.model import MixLM

__all__ = ["CURVES", "GrowthOptions", "measure_growth", "memory_cell"]

CURVES = ("candidates", "corpus", "prefix", "document")
INDEXES = "indexes"  # folder of the synthetic indexes, deleted when all is measured


@dataclass(frozen=True)
class GrowthOptions:
    """Attributes:
    candidates, corpora, prefixes, lengths: what is varied: candidates of a query, documents in the index, tokens of
        prompt and query together, tokens of a document.
    depth, query: candidates, and tokens of the query, where they are not varied.
    largest: no index, and so no list of candidates, is larger.
    rounds, seconds: see :func:`mixlm_rerank.eval.bench.timing.interleaved`; seconds are of a point.
    """

    candidates: tuple[int, ...] = (10, 30, 100, 300, 1_000, 3_000, 10_000)
    corpora: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    prefixes: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    lengths: tuple[int, ...] = (64, 256, 512)
    depth: int = 100
    query: int = 16
    largest: int = 1_000_000
    rounds: int = 9
    seconds: float = 30.0

    def limited(self, values: Iterable[int]) -> list[int]:
        """Values up to the largest.

        >>> GrowthOptions(largest=50).limited([10, 30, 100, 300])
        [10, 30, 50]
        """
        return sorted({min(value, self.largest) for value in values})


def memory_cell(documents: int) -> str:
    """Name of the cell with the memory of a rerank out of an index of so many documents."""
    return f"memory, {documents} documents"


def measure_growth(
    model: MixLM,
    folder: Path,
    options: GrowthOptions = GrowthOptions(),
    *,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """All curves by name, and the memory cells; only those are measured that ``folder`` lacks.

    The model must have been loaded by a name that another process can load. Raises InputError if the disk has no room
    for the indexes.
    """
    settings = {"rounds": options.rounds, "seconds": options.seconds, "largest": options.largest}
    kept = Cells(folder, conditions(model, **settings))
    try:
        corpora = options.limited(options.corpora)
        todo = [cell for cell in (*CURVES, *map(memory_cell, corpora)) if cell not in kept.kept]
        if todo:
            curves = Curves(
                model,
                folder / INDEXES,
                depth=min(options.depth, options.largest),
                query=options.query,
                rounds=options.rounds,
                seconds=options.seconds,
                progress=progress,
            )
            counts = options.limited(options.candidates)
            say(f"{folder}: {curves.estimate(corpora, counts, len(options.prefixes) + len(options.lengths))}")
            steps: dict[str, Callable[[], dict[str, Any]]] = {
                "candidates": partial(curves.candidates, counts),
                "prefix": partial(curves.prefix, options.prefixes, max(counts)),
                "document": partial(curves.document, options.lengths),
                "corpus": partial(curves.corpus, corpora),
                **{memory_cell(size): partial(curves.memory, size) for size in corpora},
            }
            for cell, step in steps.items():
                if cell in todo:
                    kept.keep(cell, step())
        shutil.rmtree(folder / INDEXES, ignore_errors=True)
        return kept.kept
    finally:
        kept.close()
