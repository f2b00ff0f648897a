"""The offline side: building an index against the bare item encoder, in PyTorch and ONNX, on the same texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.cells import Cells, conditions
from mixlm_rerank.eval.bench.contenders import exported
from mixlm_rerank.eval.bench.output import between, markdown_rows, write_page, write_results
from mixlm_rerank.eval.bench.plots import draw_bars
from mixlm_rerank.eval.bench.sameness import check_same
from mixlm_rerank.eval.bench.texts import Words
from mixlm_rerank.eval.bench.timing import Entrant, Spread, fastest, interleaved, spread, steady, turns_bar
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.types import Document

__all__ = ["BuildOptions", "measure_build", "write_build"]

CELL, BUILD, ENCODER, ONNX = "build and encoder", "index build", "bare item encoder", "bare item encoder, ONNX"
SHORTEST, LONGEST = 100, 300  # tokens of a document
TRIED = 64  # documents of warm-up and sameness check


@dataclass(frozen=True)
class BuildOptions:
    """Attributes:
    documents: how many; a build looks at all and tries 64 of them before it begins, which is part of its time.
    rounds: of each.
    """

    documents: int = 2048
    rounds: int = 3


def measure_build(
    model: MixLM,
    folder: Path,
    options: BuildOptions = BuildOptions(),
    *,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Seconds of all, kept in ``folder``. Raises MixLMError if the index does not hold what the encoder gives."""
    kept = Cells(folder, conditions(model, documents=options.documents, rounds=options.rounds))
    try:
        if CELL not in kept.kept:
            with TemporaryDirectory() as place:
                kept.keep(CELL, _measured(model, Path(place), options, folder, progress, say))
        return kept.kept
    finally:
        kept.close()


def _measured(
    model: MixLM,
    place: Path,
    options: BuildOptions,
    folder: Path,
    progress: bool,
    say: Callable[[str], object],
) -> dict[str, Any]:
    words, draw = Words(model.item_encoder.tokenizer), Random(0)
    texts = [words.text(draw.randint(SHORTEST, LONGEST), draw) for _ in range(options.documents)]
    documents = [Document(f"d{row}", text) for row, text in enumerate(texts)]
    some = documents[:TRIED]
    build = partial(TokenIndex.build, model=model, progress=False)
    largest = _check_sameness(model, build(some, path=place / "checked"), some)
    _, seconds = fastest([steady(ENCODER, partial(model.encode, texts[:TRIED]))], rounds=1)
    entrants = [steady(ENCODER, partial(model.encode, texts), partial(model.encode, texts[:TRIED]))]
    try:
        in_onnx = exported(model, place / "onnx").encode
        entrants.append(steady(ONNX, partial(in_onnx, texts), partial(in_onnx, texts[:TRIED])))
    except InputError as error:
        say(str(error))
    total = (len(entrants) + 1) * options.rounds * seconds[ENCODER] * options.documents / len(some)
    say(f"{folder}: {options.rounds} builds of {options.documents:,} documents, about {numbers.duration(total)}")
    entrants.append(
        Entrant(
            BUILD,
            lambda number: build(documents, path=place / str(number)),
            lambda: build(some, path=place / "warm-up"),
        )
    )
    with turns_bar(len(entrants), options.rounds, enabled=progress) as told:
        taken = interleaved(entrants, rounds=options.rounds, seconds=float("inf"), told=told)
    return {
        "documents": options.documents,
        "tokens": sum(map(len, model.item_encoder.document_ids(texts))),
        "sameness": largest,
        "seconds": taken,
    }


def _check_sameness(model: MixLM, index: TokenIndex, documents: list[Document]) -> float:
    """Largest difference between what the index holds and the encoder's tokens after quantisation."""
    quantiser = index.manifest.quantiser
    expected = quantiser.unpack(quantiser.pack(model.encode([document.content for document in documents])))
    held = index.fetch([document.docid for document in documents]).tokens
    return check_same(float(np.abs(held - expected).max()), 0.0, "tokens in the index and the encoder's")


def write_build(kept: Mapping[str, Any], folder: Path, model: str) -> str:
    """results.json, a table and a plot; returns the table."""
    cell = kept[CELL]
    spreads = {name: spread(seconds) for name, seconds in cell["seconds"].items()}
    speeds = {name: cell["documents"] / own.median for name, own in spreads.items()}
    share = speeds[BUILD] / speeds[ENCODER]
    values = {
        "documents": cell["documents"],
        "tokens": cell["tokens"],
        "build_over_encoder": share,
        "ways": [
            {
                "name": name,
                "rounds": len(cell["seconds"][name]),
                "seconds": vars(own),
                "documents_per_second": speeds[name],
                "tokens_per_second": cell["tokens"] / own.median,
            }
            for name, own in spreads.items()
        ],
    }
    write_results(folder, model, values)
    draw_bars({"here": speeds}, "documents a second", folder / "build.png")
    rows = [
        [
            name,
            numbers.speed(speeds[name]),
            between(Spread(speeds[name], cell["documents"] / own.high, cell["documents"] / own.low)),
            numbers.speed(cell["tokens"] / own.median),
            numbers.count(len(cell["seconds"][name])),
        ]
        for name, own in spreads.items()
    ]
    table = markdown_rows(["", "documents/s", "quartiles", "tokens/s", "rounds"], rows)
    about = (
        f"{cell['documents']:,} synthetic documents of {SHORTEST} to {LONGEST} tokens (as read: "
        f"{cell['tokens'] / cell['documents']:.0f} on average, with the template). The build reaches "
        f"{numbers.percent(share)} of the bare encoder's throughput; its own estimate of the time is part of it."
    )
    return write_page(folder, f"Index build of {model}", [about, table])
