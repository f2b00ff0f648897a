"""MixLM beside the cross-encoder of its backbone: by length of the documents and number of candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.cross_encoders import BATCHES, DEFAULT_BATCH, CrossEncoders, Scores, check_bert
from mixlm_rerank.eval.bench.inside import shares
from mixlm_rerank.eval.bench.kit import Run, check_same, column, quartiles, table, work_done
from mixlm_rerank.eval.bench.operations import Operations
from mixlm_rerank.eval.bench.plots import Panel, draw
from mixlm_rerank.eval.bench.synthetic import Words, random_docids, random_index
from mixlm_rerank.eval.bench.timing import Entrant, Spread, fastest, over, planned_rounds, spread
from mixlm_rerank.eval.bench.yardsticks import SHAPES, Yardstick
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fast.int8 import in_int8
from mixlm_rerank.onnx import OnnxMixLM, export
from mixlm_rerank.onnx.exporting import check_installed
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.scoring import ReferenceScorer, SharedPrefixScorer
from mixlm_rerank.types import Model

__all__ = ["exported", "grid"]

DEFAULTS, BEST, ONNX = "cross-encoder, defaults", "cross-encoder, best", "cross-encoder, ONNX int8"
QUERY = 16  # tokens
DOCUMENTS = 10_000  # in the token index
CHECKED = 20  # candidates whose scores are compared with the reference's
TRIED, WARM = 64, 16  # documents that settings of full text are tried on, and of its warm-up
MEASURED_BY = 100  # candidates at most, of cross-encoders of other shapes
WATCHED = 3  # runs of MixLM that are looked into
TOLERANCE = 1e-4  # log-odds, float32: the promise of SharedPrefixScorer
EXPECTED_SHARE = 0.75  # of the rate of matrix products, for the estimate

EXPLAINED = (
    "Medians. Speed-up: over the cross-encoder at its best settings. FLOP ratio: operations of full text over the "
    "contender's own. Realised: speed-up over FLOP ratio. Of the machine: share of the rate of float32 matrix "
    "products, measured in this run (int8 may pass it). Outside the ranker: share of the time that is not in the "
    "ranker's forward pass; of it the query: the item encoder reads it, for the residual. Documents are synthetic; "
    "one that is longer than the cross-encoder's positions is cut, and counted as it is read."
)


COLUMNS = {
    "contender": lambda row: f"{row['name']} ({row['settings']})" if row["settings"] else row["name"],
    "documents/s": column(numbers.speed, "documents_per_second", "median"),
    "quartiles": column(quartiles, "documents_per_second"),
    "ms a query": column(numbers.milliseconds, "milliseconds", "median"),
    "speed-up": column(numbers.ratio, "speedup"),
    "FLOP ratio": column(numbers.ratio, "flop_ratio"),
    "realised": column("{:.2f}".format, "realised"),
    "GFLOP/s": column(numbers.speed, "gflops"),
    "of the machine": column(numbers.percent, "of_machine"),
    "outside the ranker": column(numbers.percent, "outside"),
    "of it the query": column(numbers.percent, "query"),
    "rounds": column(numbers.count, "rounds"),
}


@dataclass(frozen=True, order=True)
class Cell:
    """Number of candidates, and their length in tokens. Sorted, quick ones come first."""

    candidates: int
    document: int

    @property
    def name(self) -> str:
        """
        >>> Cell(100, 256).name
        '256 tokens, 100 candidates, query of 16'
        """
        return f"{self.document} tokens, {self.candidates} candidates, query of {QUERY}"


@dataclass(frozen=True)
class Task:
    """A query and its candidates: as a first stage gives them, and the texts that full-text contenders read."""

    query: str
    hits: list[tuple[str, float]]
    texts: Sequence[str]

    def first(self, candidates: int) -> Task:
        return Task(self.query, self.hits[:candidates], self.texts[:candidates])


@dataclass(frozen=True)
class Contender:
    """Attributes:
    run: from a task to a ranking.
    tokens: the token budget; None for cross-encoders, which read full text.
    operations: of a cross-encoder of another shape.
    watched: the MixLM whose time inside is looked at; None where PyTorch cannot look.
    """

    name: str
    run: Callable[[Task], object]
    tokens: int | None = None
    settings: str = ""
    watched: MixLM | None = None
    operations: Operations | None = None


def grid(
    model: MixLM,
    folder: Path,
    *,
    lengths: Sequence[int] = (64, 128, 256, 512),
    candidates: Sequence[int] = (10, 100, 1000),
    budgets: Sequence[int] = (1, 2, 4, 8),
    rounds: int = 9,
    seconds: float = 30.0,
    quiet: bool = True,
) -> str:
    """Measure what ``folder`` lacks of all combinations; write and return the page, of all that it has.

    Args:
        budgets: those that the model has are measured.
        rounds, seconds: see :func:`interleaved`; seconds are of a contender in a cell.

    Raises InputError for a ranker that is no BERT or has none of the budgets, MissingDependency without ONNX Runtime,
    MixLMError where scores are not the same.
    """
    check_bert(model)
    check_installed("bench")
    within = [tokens for tokens in budgets if tokens <= model.config.tokens]
    if not within:
        raise InputError(f"none of the budgets {tuple(budgets)} is within this model's {model.config.tokens}")
    with Run(folder, model, quiet, budgets=within, rounds=rounds, seconds=seconds) as run:
        cells = sorted({Cell(count, length) for count in candidates for length in lengths})
        todo = [cell for cell in cells if cell.name not in run.kept]
        if todo:
            run.say("exporting cross-encoder and MixLM, checking that scores are the same")
            with TemporaryDirectory() as place:
                documents = max(DOCUMENTS, max(todo).candidates)
                index = random_index(Path(place, "tokens"), new_manifest(model, "int8", "random tokens"), documents)
                _Grid(model, index, run, Path(place), within, rounds, seconds).measure(todo)
        return _page(run, model.name)


def exported(model: MixLM, folder: Path) -> OnnxMixLM:
    """Of the same scores, which the export checks; on as many threads as PyTorch uses."""
    export(model, folder)
    return OnnxMixLM.from_pretrained(folder, threads=torch.get_num_threads())


class _Grid:
    """The contenders, ready to run, and the cells that they fill."""

    def __init__(
        self,
        model: MixLM,
        index: TokenIndex,
        run: Run,
        place: Path,
        budgets: Sequence[int],
        rounds: int,
        seconds: float,
    ) -> None:
        self.model, self.index, self.run, self.budgets = model, index, run, budgets
        self.rounds, self.seconds = rounds, seconds
        self.operations, self.words = Operations.of(model.ranker.backbone), Words(model.ranker.tokenizer)
        self.peers, self.int8 = CrossEncoders(model, place), in_int8(model)
        kinds: dict[str, Model] = {"": model, ", int8": self.int8, ", ONNX": exported(model, place / "onnx")}
        self.yardsticks = [self._yardstick(name) for name in SHAPES]
        self.mixlms = [self._mixlm(kind, own, tokens) for kind, own in kinds.items() for tokens in budgets]

    def measure(self, todo: Sequence[Cell]) -> None:
        rate = self.run.rate()
        largest = self._tasks(max(todo), 1)[0]
        self.run.keep("sameness", self._sameness(largest))
        expected = numbers.duration(self._expected(todo, EXPECTED_SHARE * rate))
        self.run.say(f"{len(todo)} cells, about {expected} (guessed from their operations)")
        for cell in todo:
            self.run.keep(cell.name, self._measure(cell))
        self.run.rate()

    def _measure(self, cell: Cell) -> dict[str, Any]:
        contenders, tasks = self._contenders(cell), self._tasks(cell, self.rounds)
        text, entrants = self._operations(None, cell, tasks[0]), []
        for each in contenders:
            warm = tasks[-1].first(WARM) if each.tokens is None else tasks[-1]
            entrants.append(Entrant(each.name, [partial(each.run, task) for task in tasks], partial(each.run, warm)))
        taken = self.run.timed(cell.name, entrants, rounds=self.rounds, seconds=self.seconds)
        found = [
            {
                "name": contender.name,
                "tokens": contender.tokens,
                "settings": contender.settings,
                "flops": self._operations(contender.tokens, cell, tasks[0], contender.operations),
                "seconds": taken[contender.name],
                "shares": contender.watched
                and shares(contender.watched, [partial(contender.run, task) for task in tasks[:WATCHED]]),
            }
            for contender in contenders
        ]
        return {**asdict(cell), "full_text_flops": text, "contenders": found}

    def _contenders(self, cell: Cell) -> list[Contender]:
        return [*self._cross_encoders(cell.document), *self._of_other_shapes(cell), *self.mixlms]

    def _of_other_shapes(self, cell: Cell) -> list[Contender]:
        """Only where they read few documents: how many a second they read does not depend on the number."""
        return self.yardsticks if cell.candidates <= MEASURED_BY else []

    def _yardstick(self, name: str) -> Contender:
        scores = Yardstick(name, self.model.ranker.tokenizer)
        operations = Operations.of(scores.model.base_model)
        return Contender(name, partial(_rank, scores, DEFAULT_BATCH), settings=_settings(), operations=operations)

    def _mixlm(self, kind: str, model: Model, tokens: int) -> Contender:
        """End to end, docids to a ranking."""
        reranker, watched = Reranker(model, self.index, tokens=tokens), model if isinstance(model, MixLM) else None
        run: Callable[[Task], object] = lambda task: reranker.rerank(task.query, task.hits)  # noqa: E731
        return Contender(f"MixLM k={tokens}{kind}", run, tokens, watched=watched)

    def _cross_encoders(self, length: int) -> list[Contender]:
        """As it comes, and in PyTorch and ONNX Runtime each in the settings that a short measurement found best."""
        contenders = [Contender(DEFAULTS, partial(_rank, self.peers.plain, DEFAULT_BATCH), settings=_settings())]
        (task,) = self._tasks(Cell(TRIED, length), 1)
        for name, scorers in ((BEST, self.peers.torch), (ONNX, {"int8": self.peers.onnx})):
            runs = {_settings(kind, size): partial(_rank, scorers[kind], size) for kind in scorers for size in BATCHES}
            options = [Entrant(own, [partial(run, task)], partial(run, task.first(1))) for own, run in runs.items()]
            best = self.run.cell(f"settings, {name}, {length} tokens", partial(fastest, options))
            contenders.append(Contender(name, runs[best], settings=best))
        return contenders

    def _sameness(self, task: Task) -> dict[str, Any]:
        """The fast scorer against the reference on some of the candidates that it scores together, at every budget; and
        what int8 changes: nothing is promised of it, so nothing is refused."""
        fast, int8 = SharedPrefixScorer(self.model), SharedPrefixScorer(self.int8)
        largest = off = 0.0
        for tokens in self.budgets:
            candidates = torch.from_numpy(self.index.fetch([docid for docid, _ in task.hits], tokens).tokens)
            rows = torch.linspace(0, len(candidates) - 1, min(CHECKED, len(candidates))).long()
            exact, near = fast.score(task.query, candidates), int8.score(task.query, candidates)
            plain = ReferenceScorer(self.model).score(task.query, candidates[rows])
            largest = max(largest, float((exact[rows] - plain).abs().max()))
            off = max(off, float((near - exact).abs().max()))
        check_same(largest, TOLERANCE, "MixLM's fast scores and the reference's")
        return {"mixlm": largest, "int8": off, "onnx": self.peers.check(task.query, task.texts[:CHECKED])}

    def _tasks(self, cell: Cell, count: int) -> list[Task]:
        """A query and candidates for every round, of the wished numbers of tokens; no two queries are the same."""
        draw = Random(cell.name)
        texts = self.words.texts(cell.candidates, cell.document, draw)
        return [
            Task(
                self.words.text(QUERY, draw),
                [(docid, 0.0) for docid in random_docids(cell.candidates, len(self.index), draw)],
                draw.sample(texts, len(texts)),
            )
            for _ in range(count)
        ]

    def _operations(self, tokens: int | None, cell: Cell, task: Task, of: Operations | None = None) -> float:
        """Of a query with all its candidates; ``tokens``: None for full text, ``of`` another shape, perhaps."""
        if tokens is None:
            return (of or self.operations).whole(self.peers.positions(task.query, task.texts[0]), cell.candidates)
        ranker = self.model.ranker
        prefix = len(ranker.prefixes([task.query])[0])
        below = replace(self.operations, layers=ranker.mix_layer)
        above = replace(self.operations, layers=ranker.layers - ranker.mix_layer)
        shared, own = ranker.positions(prefix, tokens)
        return below.whole(prefix) + above.shared(shared, own, cell.candidates)

    def _expected(self, todo: Sequence[Cell], rate: float) -> float:
        """About the seconds that the cells take; int8 is taken for half as fast again as float32."""
        total = 0.0
        for cell in [*todo, *{Cell(TRIED, cell.document) for cell in todo}]:  # and where settings are tried
            (task,) = self._tasks(Cell(1, cell.document), 1)
            text = self._operations(None, cell, task) / rate
            runs = [text, text, text / 1.5, *(self._operations(each.tokens, cell, task) / rate for each in self.mixlms)]
            others = self._of_other_shapes(cell)
            runs += [self._operations(None, cell, task, each.operations) / rate for each in others]
            if cell in todo:
                total += sum(run * planned_rounds(run, self.rounds, self.seconds) for run in runs)
            else:
                total += 2 * len(BATCHES) * (text + text / 1.5)
        return total


def _rank(scores: Scores, batch_size: int, task: Task) -> object:
    """Rows of the texts, best first."""
    return np.argsort(-scores(task.query, task.texts, batch_size), kind="stable")


def _settings(kind: str = "float32", batch_size: int = DEFAULT_BATCH) -> str:
    return f"{kind}, batches of {batch_size}"


def rows(cell: Mapping[str, Any], rate: float) -> list[dict[str, Any]]:
    """What follows from a cell's seconds, for each contender; see EXPLAINED. ``rate``: of matrix products."""
    (best,) = (median(each["seconds"]) for each in cell["contenders"] if each["name"] == BEST)
    found = []
    for each in cell["contenders"]:
        seconds, flops, inside = each["seconds"], each["flops"], each["shares"]
        speedup, ratio = best / median(seconds), cell["full_text_flops"] / flops
        found.append(
            {
                **{name: each[name] for name in ("name", "tokens", "settings")},
                **work_done(seconds, flops, rate),
                "documents_per_second": over(cell["candidates"], spread(seconds)),
                "speedup": speedup,
                "flop_ratio": ratio,
                "realised": speedup / ratio,
                "outside": inside and inside["query"] + inside["rest"],
                "query": inside and inside["query"],
            }
        )
    return found


def _page(run: Run, model: str) -> str:
    """Tables and the plot of all cells that were ever kept."""
    rates, same = run.rates, run.kept["sameness"]
    rate = median(rates)
    kept = [values for values in run.kept.values() if isinstance(values, dict) and "contenders" in values]
    cells = [
        {"name": Cell(values["candidates"], values["document"]).name, **values, "contenders": rows(values, rate)}
        for values in sorted(kept, key=lambda values: (values["document"], values["candidates"]))
    ]
    counts = sorted({cell["candidates"] for cell in cells})
    draw(run.folder / "speedup.png", *(_panel(cells, count) for count in counts))
    checked = (
        f"Checked before timing: MixLM's fast scores equal the reference's within {same['mixlm']:.1e} log-odds (in "
        f"int8 {same['int8']:.2f}); the cross-encoder's ONNX graph equals PyTorch within "
        f"{same['onnx']['difference']:.1e}, and its int8 scores correlate with them by "
        f"{same['onnx']['correlation']:.4f}. MixLM in ONNX was checked when it was exported (within 1e-4). "
        f"Matrix product, float32: {rate / 1e9:.0f} GFLOP/s "
        f"(median of {len(rates)}, {min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f})."
    )
    tables = [f"## {cell['name']}\n\n{table(COLUMNS, cell['contenders'])}" for cell in cells]
    values = {"matrix_product_gflops": [each / 1e9 for each in rates], "sameness": same, "cells": cells}
    return run.page(f"Speed of {model}", model, values, [checked, EXPLAINED, *tables])


def _panel(cells: Sequence[Mapping[str, Any]], candidates: int) -> Panel:
    """Speed-up against document length: ONNX int8 and MixLM at each budget."""
    lines: dict[str, dict[float, Spread]] = {}
    for cell in cells:
        for row in cell["contenders"] if cell["candidates"] == candidates else ():
            if row["name"] == ONNX or (row["tokens"] and "," not in row["name"]):
                text = row["speedup"] * row["milliseconds"]["median"]  # the quartiles are of the contender's own times
                lines.setdefault(row["name"], {})[cell["document"]] = over(text, row["milliseconds"])
    return Panel("document length (tokens)", "speed-up over full text", lines, title=f"{candidates:,} candidates")
