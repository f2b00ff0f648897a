"""Who is compared in the grid: the cross-encoder of the same backbone three times, the reference, MixLM by budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mixlm_rerank.eval.bench.cross_encoder import DEFAULT_BATCH, PredictScorer, write_cross_encoder
from mixlm_rerank.eval.bench.onnx_int8 import OnnxScorer, export, quantise
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.precision import bf16_pays
from mixlm_rerank.onnx import OnnxMixLM
from mixlm_rerank.onnx import export as export_mixlm
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.scoring import ReferenceScorer
from mixlm_rerank.types import Model

__all__ = ["BEST", "DEFAULTS", "ONNX", "Contender", "Peers", "Task", "exported", "mixlms"]

DEFAULTS, BEST, ONNX = "cross-encoder, defaults", "cross-encoder, best", "cross-encoder, ONNX int8"
Kind = Literal["cross-encoder", "reference", "MixLM", "MixLM int8", "MixLM ONNX"]
BATCHES = (4, 8, 16, 32, 64)
REFERENCE_CANDIDATES = 100  # one document at a time: more is a wait without news


@dataclass(frozen=True)
class Task:
    """A query and its candidates: docids of the token index, and the texts that full-text contenders read."""

    query: str
    docids: Sequence[str]
    texts: Sequence[str]
    hits: list[tuple[str, float]] = field(init=False)  # as a first stage gives them

    def __post_init__(self) -> None:
        object.__setattr__(self, "hits", [(docid, -float(rank)) for rank, docid in enumerate(self.docids)])

    def first(self, candidates: int) -> Task:
        return Task(self.query, self.docids[:candidates], self.texts[:candidates])


@dataclass(frozen=True)
class Contender:
    """Attributes:
    run: from a task to a ranking.
    tokens: the token budget; None for cross-encoders, which read full text.
    settings: how it is run, in words.
    most: candidates of the largest task that it is given.
    model: the MixLM whose time inside is looked at; None where PyTorch cannot look.
    """

    name: str
    kind: Kind
    run: Callable[[Task], object]
    tokens: int | None = None
    settings: str = ""
    most: int | None = None
    model: MixLM | None = None


class Peers:
    """The cross-encoders, written to ``folder`` and loaded."""

    def __init__(self, model: MixLM, folder: Path) -> None:
        checkpoint = folder / "cross-encoder"
        write_cross_encoder(model, checkpoint)
        dtypes = ["float32", *["bfloat16"] * bf16_pays("cpu")]
        self.torch = {dtype: PredictScorer(checkpoint, dtype) for dtype in dtypes}
        self.plain = self.torch["float32"]
        export(checkpoint, folder / "float32.onnx")
        quantise(folder / "float32.onnx", folder / "int8.onnx")
        self.onnx_float32, self.onnx = (
            OnnxScorer(folder / f"{name}.onnx", checkpoint, self.plain.longest) for name in ("float32", "int8")
        )

    def options(self, contender: str) -> dict[str, Callable[[Task], object]]:
        """Settings of ``BEST`` or ``ONNX`` to choose from: name -> from a task to a ranking."""
        scorers: Mapping[str, PredictScorer | OnnxScorer] = self.torch if contender == BEST else {"int8": self.onnx}
        return {
            f"{kind}, batches of {batch}": partial(_rank, scorer, batch)
            for kind, scorer in scorers.items()
            for batch in BATCHES
        }

    def contenders(self, chosen: Mapping[str, str]) -> list[Contender]:
        """All three; ``chosen``: contender -> one of its :meth:`options`."""
        runs: dict[str, tuple[Callable[[Task], object], str]] = {
            DEFAULTS: (partial(_rank, self.plain, DEFAULT_BATCH), f"float32, batches of {DEFAULT_BATCH}"),
            **{name: (self.options(name)[chosen[name]], chosen[name]) for name in (BEST, ONNX)},
        }
        return [Contender(name, "cross-encoder", run, settings=settings) for name, (run, settings) in runs.items()]


def exported(model: MixLM, folder: Path) -> OnnxMixLM:
    """Of the same scores, which the export checks; on as many threads as PyTorch uses."""
    export_mixlm(model, folder)
    return OnnxMixLM.from_pretrained(folder, threads=torch.get_num_threads())


def mixlms(model: MixLM, int8: MixLM, in_onnx: OnnxMixLM, index: TokenIndex, budgets: Sequence[int]) -> list[Contender]:
    """The reference at the largest budget, MixLM at each, in int8 and exported: end to end, docids to a ranking."""
    largest = max(budgets)
    reference = Reranker(model, index, tokens=largest, scorer=ReferenceScorer(model))
    return [
        Contender(f"MixLM k={largest}, reference", "reference", _run(reference), largest, most=REFERENCE_CANDIDATES),
        *(_mixlm("MixLM", model, index, tokens) for tokens in budgets),
        *(_mixlm("MixLM int8", int8, index, tokens) for tokens in budgets),
        *(_mixlm("MixLM ONNX", in_onnx, index, tokens) for tokens in budgets),
    ]


def _mixlm(kind: Kind, model: Model, index: TokenIndex, tokens: int) -> Contender:
    name = f"MixLM k={tokens}" + kind.removeprefix("MixLM").replace(" ", ", ")
    inside = model if isinstance(model, MixLM) else None
    return Contender(name, kind, _run(Reranker(model, index, tokens=tokens)), tokens, model=inside)


def _run(reranker: Reranker) -> Callable[[Task], object]:
    return lambda task: reranker.rerank(task.query, task.hits)


def _rank(scorer: PredictScorer | OnnxScorer, batch_size: int, task: Task) -> NDArray[np.int64]:
    """Rows of the texts, best first."""
    return np.argsort(-scorer.scores(task.query, task.texts, batch_size), kind="stable")
