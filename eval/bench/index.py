"""The token index on its own: build speed against the bare encoder; fetching, opening, memory and disk by size."""

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
from numpy.typing import NDArray

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench import machine
from mixlm_rerank.eval.bench.grid import exported
from mixlm_rerank.eval.bench.kit import Entrant, Run, check_same, spread, work_done
from mixlm_rerank.eval.bench.show import Panel, draw, table
from mixlm_rerank.eval.bench.synthetic import Words, docid, index_bytes, random_docids, random_index
from mixlm_rerank.index import Quantiser, TokenIndex
from mixlm_rerank.index.manifest import Manifest
from mixlm_rerank.index.segments import Segments
from mixlm_rerank.model import MixLM
from mixlm_rerank.types import Document

__all__ = ["build", "store"]

BUILD, ENCODER, ONNX = "index build", "bare item encoder", "bare item encoder, ONNX"
SHORTEST, LONGEST = 100, 300  # tokens of a document
TRIED = 64  # documents in the warm-up and the sameness check
INDEX, BARE = "token index", "bare memory map and a dict"
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
FETCH = 1000  # documents per fetch
QUANTISER = Quantiser("int8", 4, 384)  # tokens per document, and their dimensions
ROWS = Segments.rows_per_segment(QUANTISER.record_bytes)
MANIFEST = Manifest("0" * 16, "none", QUANTISER.tokens, QUANTISER.dim, QUANTISER.precision, "random", ROWS)


def build(model: MixLM, folder: Path, *, documents: int, rounds: int, quiet: bool) -> str:
    """Measure the index build and the bare encoder, unless ``folder`` has them; write and return the page.

    The build's time includes its own estimate: it reads all documents and encodes a sample of 64 before it starts.
    Raises MixLMError if the tokens in the index differ from the encoder's.
    """
    run = Run(folder, model, quiet, documents=documents, rounds=rounds)
    tokens, taken = run.cell("build and encoder", _build, run, model, documents, rounds).values()
    ways = [{"name": one["name"], **work_done(one["seconds"], documents=documents, tokens=tokens)} for one in taken]
    speeds = {way["name"]: way["documents_per_second"] for way in ways}
    share = speeds[BUILD] / speeds[ENCODER]
    about = (
        f"{documents:,} synthetic documents of {SHORTEST} to {LONGEST} tokens (as read: {tokens / documents:.0f} on "
        f"average, with the template). The build reaches {numbers.percent(share)} of the bare encoder's throughput; "
        "its own estimate of the time is part of it."
    )
    values = {"documents": documents, "tokens": tokens, "build_over_encoder": share, "ways": ways}
    return run.page(f"Index build of {model.name}", model.name, values, [about, table(ways)])


def _build(run: Run, model: MixLM, count: int, rounds: int) -> dict[str, Any]:
    words = Words(model.item_encoder.tokenizer)
    texts = [words.text(words.draw.randint(SHORTEST, LONGEST)) for _ in range(count)]
    documents = [Document(docid(row), text) for row, text in enumerate(texts)]
    encoders: dict[str, Callable[[Sequence[str]], object]] = {ENCODER: model.encode}
    with TemporaryDirectory() as place:

        def build(documents: Sequence[Document], name: str) -> TokenIndex:
            return TokenIndex.build(documents, model, Path(place, name), progress=False)

        few, first = documents[:TRIED], texts[:TRIED]
        checked = build(few, "checked")
        quantiser = checked.manifest.quantiser
        expected = quantiser.unpack(quantiser.pack(model.encode(first)))
        held = checked.fetch([document.docid for document in few]).tokens
        check_same(float(np.abs(held - expected).max()), 0.0, "tokens in the index and the encoder's")
        try:
            encoders[ONNX] = exported(model, Path(place, "onnx")).encode
        except InputError as error:
            run.say(str(error))
        entrants = [Entrant(name, [partial(own, texts)], partial(own, first)) for name, own in encoders.items()]
        builds = [partial(build, documents, str(number)) for number in range(rounds)]
        entrants.append(Entrant(BUILD, builds, partial(build, few, "warm-up")))
        tokens = sum(map(len, model.item_encoder.document_ids(texts)))
        return {"tokens": tokens, "ways": run.timed("build", entrants)}


def store(folder: Path, *, largest: int, rounds: int, quiet: bool) -> str:
    """Measure the index sizes that ``folder`` lacks, up to ``largest`` documents; write and return the page.

    ``rounds``: timed fetches, each of newly drawn documents. Each index is deleted once measured. Raises InputError if
    the disk has no room, MixLMError if tokens from an index and from the bare map differ.
    """
    run = Run(folder, None, quiet, fetch=FETCH, rounds=rounds)
    for size in sorted({min(size, largest) for size in SIZES}):
        run.cell(f"{size} documents", _store, run, size, rounds)
    points, rows = [], []
    for cell in sorted(run.kept.values(), key=lambda cell: int(cell["documents"])):
        taken = {name: spread(seconds, 1e3) for name, seconds in cell.pop("seconds").items()}
        point = {
            "name": str(cell["documents"]),
            **cell,
            "milliseconds": taken,
            "over_bare": taken[INDEX]["median"] / taken[BARE]["median"],
            "over_payload": cell["disk"] / cell["payload"],
            "documents_per_second": cell["documents"] / cell["writing_seconds"],
        }
        points.append(point)
        rows.append({**point, "milliseconds": taken[INDEX], "bare_milliseconds": taken[BARE]})
    lines = {name: {point["documents"]: point["milliseconds"][name] for point in points} for name in (INDEX, BARE)}
    up = f"milliseconds for {FETCH:,} documents"
    draw(run.folder / "fetch.png", Panel("documents in the index", up, lines, level=True))
    said = (
        f"A fetch is of {FETCH:,} random documents, {QUANTISER.tokens} tokens of {QUANTISER.dim} dimensions each, int8 "
        "to float32, out of the page cache. The bare map and its dict hold the same records, without updates or crash "
        "safety. Memory is private, beyond that before."
    )
    return run.page("The token index by itself", "none", {"points": points}, [said, table(rows)])


def _store(run: Run, documents: int, rounds: int) -> dict[str, Any]:
    place, joined = run.folder / "index", run.folder / "bare.bin"
    shutil.rmtree(place, ignore_errors=True)  # left half written: its build time is unknown
    run.say(f"{numbers.count(documents)} documents, {numbers.size(index_bytes(MANIFEST, documents))}")
    try:
        found = {**machine.apart(writing, place, documents), **machine.apart(opening, place)}
        index, draw = TokenIndex(place), Random(0)
        # the baseline without updates and crash safety: one file, and docid -> row in memory
        with joined.open("wb") as whole:
            for file in sorted(place.glob("tokens-*.bin")):
                whole.write(np.memmap(file, np.uint8, mode="r").data)
        records = np.memmap(joined, np.uint8, mode="r").reshape(-1, QUANTISER.record_bytes)
        rows = {docid(row): row for row in range(documents)}

        def bare(docids: Sequence[str]) -> NDArray[np.float32]:
            return QUANTISER.unpack(records[[rows[name] for name in docids]])

        drawn = [random_docids(min(FETCH, documents), documents, draw) for _ in range(rounds + 1)]
        for docids in drawn[:3]:
            largest = float(np.abs(index.fetch(docids).tokens - bare(docids)).max())
            check_same(largest, 0.0, "tokens of the index and of its own file")
        fetches: dict[str, Callable[[Sequence[str]], object]] = {INDEX: index.fetch, BARE: bare}
        entrants = [Entrant(name, [partial(fetch, docids) for docids in drawn]) for name, fetch in fetches.items()]
        taken = {one["name"]: one["seconds"] for one in run.timed("fetch", entrants)}
        sizes = {"payload": documents * QUANTISER.record_bytes, "disk": index.info().bytes}
        return {"documents": documents, "seconds": taken, **found, **sizes}
    finally:
        shutil.rmtree(place, ignore_errors=True)
        joined.unlink(missing_ok=True)


def writing(place: Path, documents: int) -> dict[str, float | None]:
    """Write an index. Returns seconds, and the peak growth of private memory in bytes."""
    started = time.perf_counter()
    growth = machine.private_growth(lambda: random_index(place, MANIFEST, documents))
    return {"writing_seconds": time.perf_counter() - started, "writing_memory": growth}


def opening(place: Path) -> dict[str, float]:
    """Open an index. Returns seconds, and the growth of private memory in bytes."""
    before, started = machine.private() or 0, time.perf_counter()
    index = TokenIndex(place)
    seconds = time.perf_counter() - started
    taken = (machine.private() or 0) - before
    del index
    return {"open_seconds": seconds, "open_memory": taken}
