"""How MixLM's latency grows: with candidates, size of the corpus, length of prefix and documents; and its memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench import memory
from mixlm_rerank.eval.bench.kit import Run, column, quartiles, table
from mixlm_rerank.eval.bench.plots import Panel, draw
from mixlm_rerank.eval.bench.synthetic import Words, docid, index_bytes, random_docids, random_index
from mixlm_rerank.eval.bench.timing import Entrant, spread
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.model import MixLM
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import Document

__all__ = ["growth", "straight_line"]

CANDIDATES = (10, 30, 100, 300, 1_000, 3_000, 10_000)
CORPORA = (10_000, 100_000, 1_000_000)
PREFIXES = (8, 16, 32, 64, 128, 256)  # tokens of prompt and query together
LENGTHS = (64, 256, 512)  # tokens of a document
DEPTH, QUERY = 100, 16  # candidates, and tokens of the query, where they are not varied
MEMORY_CANDIDATES = 1000
WRITING = 1e-4  # seconds a document, about
ACROSS = {
    "candidates": "candidates",
    "corpus": "documents in the index",
    "prefix": "tokens of prompt and query",
    "document": "tokens of a document",
}
PLOTTED = ("candidates", "corpus")
MEMORY = "memory, "
COLUMNS = {
    "ms a query": column(numbers.milliseconds, "milliseconds", "median"),
    "quartiles": column(quartiles, "milliseconds"),
    "rounds": column(numbers.count, "rounds"),
}
MEMORY_COLUMNS = {
    "index": column(str, "index"),
    "model loaded": column(numbers.size, "loaded"),
    "private while reranking, beyond that": column(numbers.size, "private"),
    "candidates": column(numbers.count, "candidates"),
}


def growth(
    model: MixLM, folder: Path, *, largest: int = 1_000_000, rounds: int = 9, seconds: float = 30.0, quiet: bool = True
) -> str:
    """Measure the curves that ``folder`` lacks; write and return the page.

    Args:
        largest: no index, and so no list of candidates, is larger.
        rounds, seconds: see :func:`interleaved`; seconds are of a point.

    The model must have been loaded by a name that another process can load. Raises InputError if the disk has no room
    for the indexes, which are deleted in the end.
    """
    with Run(folder, model, quiet, largest=largest, rounds=rounds, seconds=seconds) as run:
        counts, corpora = (sorted({min(value, largest) for value in values}) for values in (CANDIDATES, CORPORA))
        curves = _Curves(model, run, largest, rounds, seconds)
        steps: dict[str, Callable[[], Any]] = {
            "candidates": partial(curves.candidates, counts),
            "prefix": partial(curves.prefix, max(counts)),
            "document": curves.document,
            "corpus": partial(curves.corpus, corpora),
            **{f"{MEMORY}{size} documents": partial(curves.memory, size) for size in corpora},
        }
        if any(name not in run.kept for name in steps):
            run.say(curves.estimate(corpora, counts))
        for name, step in steps.items():
            run.cell(name, step)
        shutil.rmtree(curves.place, ignore_errors=True)
        return _page(run, model)


class _Curves:
    """Points that are measured in turn, each round with other queries and candidates, at the largest budget."""

    def __init__(self, model: MixLM, run: Run, largest: int, rounds: int, seconds: float) -> None:
        self.model, self.run, self.rounds, self.seconds = model, run, rounds, seconds
        self.place, self.depth = run.folder / "indexes", min(DEPTH, largest)
        self.words, self.draw = Words(model.ranker.tokenizer), Random(0)
        self.manifest, self.made = new_manifest(model, "int8", "random tokens"), dict[int, TokenIndex]()

    def estimate(self, corpora: Sequence[int], counts: Sequence[int]) -> str:
        """What it will take: the smallest index is made, and a query reranked with it, to know."""
        rerank = self.rerank(self.index(min(corpora)), self.some(min(corpora)))
        rerank()  # warm-up
        started = time.perf_counter()
        rerank()
        one = (time.perf_counter() - started) / self.depth  # seconds a candidate
        others = len(corpora) + len(PREFIXES) + len(LENGTHS)
        points = [one * count for count in (*counts, *[self.depth] * others)]
        measuring = sum(2 * point + min(self.rounds * point, self.seconds) for point in points)
        missing = sum(size for size in corpora if not (self.place / str(size)).exists())
        return (
            f"indexes of {', '.join(map(numbers.count, corpora))} documents, "
            f"{numbers.size(index_bytes(self.manifest, missing))} more on disk for a while, about "
            f"{numbers.duration(measuring + WRITING * missing)}"
        )

    def candidates(self, counts: Sequence[int]) -> dict[str, Any]:
        index, documents = self.index(max(counts)), max(counts)
        return self.timed(counts, lambda count: self.rerank(index, random_docids(count, documents, self.draw)))

    def corpus(self, sizes: Sequence[int]) -> dict[str, Any]:
        """Candidates lie all over the index."""
        indexes = {size: self.index(size) for size in sizes}
        return self.timed(sizes, lambda size: self.rerank(indexes[size], self.some(size)))

    def prefix(self, documents: int) -> dict[str, Any]:
        """As many tokens as this model reads."""
        around, longest = self.words.prompt(self.model.ranker), self.model.config.max_query_tokens
        possible = [length for length in PREFIXES if around < length <= longest]
        if not possible:
            raise InputError(f"this model's prefix has {around + 1} to {longest} tokens: none of {list(PREFIXES)}")
        index = self.index(documents)
        return self.timed(possible, lambda length: self.rerank(index, self.some(documents), length - around))

    def document(self) -> dict[str, Any]:
        """Documents that were really encoded. The index holds as many tokens of each."""
        words = Words(self.model.item_encoder.tokenizer)
        docids = [docid(row) for row in range(self.depth)]
        with TemporaryDirectory() as place:
            indexes = {}
            for length in LENGTHS:
                texts = words.texts(self.depth, length, self.draw)
                documents = [Document(name, text) for name, text in zip(docids, texts, strict=True)]
                indexes[length] = TokenIndex.build(documents, self.model, Path(place, str(length)), progress=False)
            return self.timed(LENGTHS, lambda length: self.rerank(indexes[length], docids))

    def memory(self, documents: int) -> dict[str, Any]:
        """Of a process that reranks out of an index of so many documents."""
        self.index(documents)
        count, query = min(MEMORY_CANDIDATES, documents), self.words.text(QUERY, self.draw)
        place = str(self.place / str(documents))
        found = memory.apart(rerank_memory, self.model.name, place, count, torch.get_num_threads(), query)
        return {"candidates": count, **found}

    def timed(self, points: Sequence[int], work: Callable[[int], Callable[[], object]]) -> dict[str, Any]:
        """``work`` draws what a point does in a round."""
        drawn = {point: [work(point) for _ in range(self.rounds)] for point in points}
        entrants = [Entrant(str(point), runs) for point, runs in drawn.items()]
        taken = self.run.timed("rerank", entrants, rounds=self.rounds, seconds=self.seconds)
        return {"x": list(points), "seconds": list(taken.values())}

    def index(self, documents: int) -> TokenIndex:
        """Made if it is not there, or made to its end."""
        if documents not in self.made:
            with self.run.bar(documents, "write an index", "documents") as bar:
                self.made[documents] = random_index(self.place / str(documents), self.manifest, documents, bar)
        return self.made[documents]

    def rerank(self, index: TokenIndex, docids: Sequence[str], query: int = QUERY) -> Callable[[], object]:
        """``query``: tokens of it."""
        hits, text = [(name, 0.0) for name in docids], self.words.text(query, self.draw)
        return partial(Reranker(self.model, index).rerank, text, hits)

    def some(self, documents: int) -> list[str]:
        return random_docids(self.depth, documents, self.draw)


def rerank_memory(name: str, index: str, candidates: int, threads: int, query: str) -> dict[str, int | None]:
    """Bytes of memory of this process, which reranks once, at the largest budget, on the CPU.

    Returns:
        ``loaded``: resident, with the model loaded. ``private``: what reranking adds with no file behind it, None if
        the system is silent. Pages of the index come on top, which the system maps by the megabyte and takes back when
        memory is short.
    """
    torch.set_num_threads(threads)
    model = MixLM.from_pretrained(name, device="cpu", dtype="float32", local_files_only=True)
    loaded = memory.resident()
    hits = [(name, 0.0) for name in random_docids(candidates, len(TokenIndex(index)), Random(0))]
    private = memory.private_growth(lambda: Reranker(model, TokenIndex(index)).rerank(query, hits))
    return {"loaded": loaded, "private": private}


def straight_line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """The line through positive points whose relative distances, squared, are least.

    Returns:
        ``intercept``, ``slope``; ``departure``: the largest relative distance of a point from it.

    >>> {name: round(value, 3) for name, value in straight_line([1, 2, 4], [3.0, 5.0, 9.0]).items()}
    {'intercept': 1.0, 'slope': 2.0, 'departure': 0.0}
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    (intercept, slope), *_ = np.linalg.lstsq(np.stack([1 / ys, xs / ys], axis=1), np.ones(len(xs)), rcond=None)
    departure = np.abs((intercept + slope * xs) / ys - 1).max()
    return {"intercept": float(intercept), "slope": float(slope), "departure": float(departure)}


def _page(run: Run, model: MixLM) -> str:
    tokens, values, parts = model.config.tokens, dict[str, Any](), []
    for name, across in ACROSS.items():
        points = [
            {"name": str(x), "x": x, "rounds": len(seconds), "milliseconds": spread(seconds, 1e3)}
            for x, seconds in zip(run.kept[name]["x"], run.kept[name]["seconds"], strict=True)
        ]
        medians = [point["milliseconds"]["median"] for point in points]
        flat = max(medians) / min(medians)
        values[name] = {"points": points, "largest_over_smallest": flat}
        said = f"Slowest over fastest point: {flat:.2f}."
        if name == "candidates":
            line = values[name]["line"] = straight_line(run.kept[name]["x"], medians)
            said = (
                f"Line through the points: {line['intercept']:.1f} ms, and {1e3 * line['slope']:.1f} ms for each 1,000 "
                f"candidates; no point is further from it than {numbers.percent(line['departure'])}."
            )
        parts.append(f"## {across}\n\n{table({across: column(numbers.count, 'x')} | COLUMNS, points)}\n\n{said}")
        if name in PLOTTED:
            lines = {"MixLM": {point["x"]: point["milliseconds"] for point in points}}
            panel = Panel(across, "milliseconds a query", lines, level=name != "candidates")
            draw(run.folder / f"{name}.png", panel)
    memory = {name.removeprefix(MEMORY): own for name, own in run.kept.items() if name.startswith(MEMORY)}
    said = (
        f"Token budget {tokens}; medians of whole queries, from docids to a ranking. The item encoder reads at most "
        f"{model.config.max_document_tokens} tokens of a document."
    )
    drawn = table(MEMORY_COLUMNS, [{"index": name, **own} for name, own in memory.items()])
    values |= {"tokens": tokens, "memory": memory}
    return run.page(f"Growth of {model.name}", model.name, values, [said, *parts, f"## memory\n\n{drawn}"])
