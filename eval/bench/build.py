"""The offline side: building an index against the bare item encoder, in PyTorch and ONNX, on the same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.grid import exported
from mixlm_rerank.eval.bench.kit import Run, check_same, column, quartiles, table
from mixlm_rerank.eval.bench.synthetic import Words
from mixlm_rerank.eval.bench.timing import Entrant, over, spread
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.types import Document

__all__ = ["build"]

CELL, BUILD, ENCODER, ONNX = "build and encoder", "index build", "bare item encoder", "bare item encoder, ONNX"
SHORTEST, LONGEST = 100, 300  # tokens of a document
TRIED = 64  # documents of warm-up and sameness check
COLUMNS = {
    "": column(str, "name"),
    "documents/s": column(numbers.speed, "documents_per_second"),
    "quartiles": column(quartiles, "quartiles"),
    "tokens/s": column(numbers.speed, "tokens_per_second"),
    "rounds": column(numbers.count, "rounds"),
}


def build(model: MixLM, folder: Path, *, documents: int = 2048, rounds: int = 3, quiet: bool = True) -> str:
    """Measure all, unless ``folder`` has it; write and return the page.

    A build looks at all documents and tries 64 of them before it begins, which is part of its time. Raises MixLMError
    if the index does not hold what the encoder gives.
    """
    with Run(folder, model, quiet, documents=documents, rounds=rounds) as run, TemporaryDirectory() as place:
        return _page(run, model.name, run.cell(CELL, partial(_measured, run, model, Path(place), documents, rounds)))


def _measured(run: Run, model: MixLM, place: Path, count: int, rounds: int) -> dict[str, Any]:
    words, draw = Words(model.item_encoder.tokenizer), Random(0)
    texts = [words.text(draw.randint(SHORTEST, LONGEST), draw) for _ in range(count)]
    documents = [Document(f"d{row}", text) for row, text in enumerate(texts)]
    some, build = documents[:TRIED], partial(TokenIndex.build, model=model, progress=False)
    _check(model, build(some, path=place / "checked"), some)
    started = perf_counter()
    model.encode(texts[:TRIED])
    total = 3 * rounds * (perf_counter() - started) * count / len(some)
    run.say(f"{rounds} builds of {count:,} documents, about {numbers.duration(total)}")
    encoders: dict[str, Callable[[Sequence[str]], object]] = {ENCODER: model.encode}
    try:
        encoders[ONNX] = exported(model, place / "onnx").encode
    except InputError as error:
        run.say(str(error))
    entrants = [
        *(Entrant(name, [partial(own, texts)], partial(own, texts[:TRIED])) for name, own in encoders.items()),
        Entrant(
            BUILD,
            [partial(build, documents, path=place / str(number)) for number in range(rounds)],
            partial(build, some, path=place / "warm-up"),
        ),
    ]
    tokens = sum(map(len, model.item_encoder.document_ids(texts)))
    return {"documents": count, "tokens": tokens, "seconds": run.timed("build", entrants, rounds=rounds)}


def _check(model: MixLM, index: TokenIndex, documents: list[Document]) -> None:
    """The index holds the encoder's tokens after quantisation."""
    quantiser = index.manifest.quantiser
    expected = quantiser.unpack(quantiser.pack(model.encode([document.content for document in documents])))
    held = index.fetch([document.docid for document in documents]).tokens
    check_same(float(np.abs(held - expected).max()), 0.0, "tokens in the index and the encoder's")


def _page(run: Run, model: str, cell: dict[str, Any]) -> str:
    documents, tokens = cell["documents"], cell["tokens"]
    spreads = {name: spread(seconds) for name, seconds in cell["seconds"].items()}
    ways = [
        {
            "name": name,
            "rounds": len(cell["seconds"][name]),
            "documents_per_second": documents / own["median"],
            "quartiles": over(documents, own),
            "tokens_per_second": tokens / own["median"],
        }
        for name, own in spreads.items()
    ]
    share = spreads[ENCODER]["median"] / spreads[BUILD]["median"]
    about = (
        f"{documents:,} synthetic documents of {SHORTEST} to {LONGEST} tokens (as read: {tokens / documents:.0f} on "
        f"average, with the template). The build reaches {numbers.percent(share)} of the bare encoder's throughput; "
        "its own estimate of the time is part of it."
    )
    values = {"documents": documents, "tokens": tokens, "build_over_encoder": share, "ways": ways}
    return run.page(f"Index build of {model}", model, values, [about, table(COLUMNS, ways)])
