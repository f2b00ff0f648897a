"""Growth of MixLM's latency with candidates, corpus size, prefix length and document length; and its memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench import machine
from mixlm_rerank.eval.bench.kit import Entrant, Run, work_done
from mixlm_rerank.eval.bench.show import Panel, draw, table
from mixlm_rerank.eval.bench.synthetic import Words, docid, index_bytes, random_docids, random_index
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
DEPTH, QUERY = 100, 16  # candidates and query tokens, where they are not varied
MEMORY, MEMORY_CANDIDATES = "memory, ", 1000
ACROSS = {
    "candidates": "candidates",
    "corpus": "documents in the index",
    "prefix": "tokens of prompt and query",
    "document": "tokens of a document",
}
PLOTTED = ("candidates", "corpus")


def growth(model: MixLM, folder: Path, *, largest: int, rounds: int, seconds: float, quiet: bool) -> str:
    """Measure the curves that ``folder`` lacks; write and return the page. Indexes have at most ``largest`` documents.

    The model must have been loaded by a name that another process can load. Raises InputError if the disk has no room
    for the indexes; they are deleted at the end.
    """
    run = Run(folder, model, quiet, largest=largest, rounds=rounds, seconds=seconds)
    counts, corpora = (sorted({min(value, largest) for value in values}) for values in (CANDIDATES, CORPORA))
    place, depth, most = folder / "indexes", min(DEPTH, largest), max(counts)
    manifest = new_manifest(model, "int8", "random tokens")
    words, source = Words(model.ranker.tokenizer), Words(model.item_encoder.tokenizer)
    around, longest = words.prompt(model.ranker), model.config.max_query_tokens
    prefixes = [length for length in PREFIXES if around < length <= longest]
    if not prefixes:
        raise InputError(f"this model's prefix has {around + 1} to {longest} tokens: none of {list(PREFIXES)}")

    @cache
    def index(documents: int) -> TokenIndex:
        """The random index of that size; created, or completed if interrupted."""
        return random_index(place / str(documents), manifest, documents, progress=not quiet)

    @cache
    def encoded(length: int) -> TokenIndex:
        """An index of encoded texts of ``length`` tokens. Embedding tokens per document do not depend on it."""
        documents = [Document(docid(row), source.text(length)) for row in range(depth)]
        shutil.rmtree(place / f"{length} tokens", ignore_errors=True)
        return TokenIndex.build(documents, model, place / f"{length} tokens", progress=False)

    # point -> index, number of candidates, query tokens
    curves: dict[str, tuple[Sequence[int], Callable[[int], tuple[TokenIndex, int, int]]]] = {
        "candidates": (counts, lambda count: (index(most), count, QUERY)),
        "prefix": (prefixes, lambda length: (index(most), depth, length - around)),
        "document": (LENGTHS, lambda length: (encoded(length), depth, QUERY)),
        "corpus": (corpora, lambda size: (index(size), depth, QUERY)),
    }

    def curve(points: Sequence[int], of: Callable[[int], tuple[TokenIndex, int, int]]) -> dict[str, Any]:
        """Rerank at each point. Candidates are drawn from the whole index, anew for each round."""
        entrants = []
        for point in points:
            own, candidates, query = of(point)
            tasks = [(words.text(query), random_docids(candidates, len(own), words.draw)) for _ in range(rounds)]
            rerank = Reranker(model, own).rerank
            runs = [partial(rerank, text, [(name, 0.0) for name in docids]) for text, docids in tasks]
            entrants.append(Entrant(str(point), runs))
        return {"x": points, "seconds": [own["seconds"] for own in run.timed("rerank", entrants)]}

    def memory(documents: int) -> dict[str, Any]:
        """Memory of a process that reranks from an index of ``documents`` documents."""
        count, threads = min(MEMORY_CANDIDATES, len(index(documents))), torch.get_num_threads()
        given = (model.name, place / str(documents), count, threads, words.text(QUERY))
        return {"candidates": count, **machine.apart(rerank_memory, *given)}

    if not run.kept.keys() >= {*curves, *(f"{MEMORY}{size} documents" for size in corpora)}:
        size = numbers.size(sum(index_bytes(manifest, each) for each in corpora))
        run.say(f"indexes of {', '.join(map(numbers.count, corpora))} documents, {size} on disk for a while")
    for name, given in curves.items():
        run.cell(name, curve, *given)
    for documents in corpora:
        run.cell(f"{MEMORY}{documents} documents", memory, documents)
    shutil.rmtree(place, ignore_errors=True)
    return _page(run, model)


def rerank_memory(name: str, index: Path, candidates: int, threads: int, query: str) -> dict[str, int | None]:
    """Bytes of memory of this process, which reranks once at the largest budget on the CPU.

    Returns:
        ``loaded``: resident memory with the model loaded. ``private``: memory without a file behind it that reranking
        adds; None if the system does not report it. Pages of the index come on top: the system maps them by the
        megabyte and reclaims them when memory is short.
    """
    torch.set_num_threads(threads)
    model = MixLM.from_pretrained(name, device="cpu", dtype="float32", local_files_only=True)
    loaded = machine.resident()
    hits = [(name, 0.0) for name in random_docids(candidates, len(TokenIndex(index)), Random(0))]
    private = machine.private_growth(lambda: Reranker(model, TokenIndex(index)).rerank(query, hits))
    return {"loaded": loaded, "private": private}


def straight_line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Line through positive points with the least squared relative distances; ``departure``: the largest distance.

    >>> {name: round(value, 3) for name, value in straight_line([1, 2, 4], [3.0, 5.0, 9.0]).items()}
    {'intercept': 1.0, 'slope': 2.0, 'departure': 0.0}
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    (intercept, slope), *_ = np.linalg.lstsq(np.stack([1 / ys, xs / ys], axis=1), np.ones(len(xs)), rcond=None)
    departure = np.abs((intercept + slope * xs) / ys - 1).max()
    return {"intercept": float(intercept), "slope": float(slope), "departure": float(departure)}


def _page(run: Run, model: MixLM) -> str:
    values, parts = dict[str, Any](), []
    for name, across in ACROSS.items():
        x, taken = run.kept[name]["x"], run.kept[name]["seconds"]
        points = [{"name": str(at), "x": at, **work_done(own)} for at, own in zip(x, taken, strict=True)]
        medians = [point["milliseconds"]["median"] for point in points]
        values[name] = {"points": points, "largest_over_smallest": max(medians) / min(medians)}
        said = f"Slowest over fastest point: {max(medians) / min(medians):.2f}."
        if name == "candidates":
            line = values[name]["line"] = straight_line(x, medians)
            said = (
                f"Line through the points: {line['intercept']:.1f} ms, and {1e3 * line['slope']:.1f} ms for each 1,000 "
                f"candidates; no point is further from it than {numbers.percent(line['departure'])}."
            )
        parts.append(f"## {across}\n\n{table(points)}\n\n{said}")
        if name in PLOTTED:
            lines = {"MixLM": {point["x"]: point["milliseconds"] for point in points}}
            draw(run.folder / f"{name}.png", Panel(across, "milliseconds a query", lines, level=name != "candidates"))
    memory = {name.removeprefix(MEMORY): own for name, own in run.kept.items() if name.startswith(MEMORY)}
    drawn = table([{"name": name, **own} for name, own in memory.items()])
    said = (
        f"Token budget {model.config.tokens}; medians of whole queries, from docids to a ranking. The item encoder "
        f"reads at most {model.config.max_document_tokens} tokens of a document."
    )
    values |= {"tokens": model.config.tokens, "memory": memory}
    return run.page(f"Growth of {model.name}", model.name, values, [said, *parts, f"## memory\n\n{drawn}"])
