"""Everything side by side: document lengths, numbers of candidates, query lengths; cell by cell, each kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.cells import Cells, conditions
from mixlm_rerank.eval.bench.contenders import BEST, ONNX, Contender, Peers, Task, exported, mixlms
from mixlm_rerank.eval.bench.cross_encoder import check_bert
from mixlm_rerank.eval.bench.flops import shape_of, shared_prefix_flops, whole_flops
from mixlm_rerank.eval.bench.inside import shares
from mixlm_rerank.eval.bench.plan import Cell, GridOptions, grid_cells
from mixlm_rerank.eval.bench.product import keep_rate
from mixlm_rerank.eval.bench.sameness import check_mixlm, check_onnx, off_in_int8
from mixlm_rerank.eval.bench.stores import manifest_for, random_docids, random_index
from mixlm_rerank.eval.bench.texts import Words
from mixlm_rerank.eval.bench.timing import Entrant, fastest, interleaved, planned_rounds, steady
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fast.int8 import in_int8
from mixlm_rerank.onnx.exporting import check_installed
from mixlm_rerank.progress import progress_bar

__all__ = ["measure_grid"]

DOCUMENTS = 10_000  # in the token index
CHECKED = 20  # candidates whose scores are compared
TRIED = 64  # documents that settings are tried on
WARM = 16  # documents of a full-text warm-up
LOOKS_INSIDE = 3  # runs of MixLM that are watched
EXPECTED_SHARE = 0.75  # of the rate of matrix products, for the estimate


def measure_grid(
    model: MixLM,
    folder: Path,
    options: GridOptions = GridOptions(),
    *,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """All cells by name, and what was found beside them. Only those are measured that ``folder`` lacks.

    Raises InputError for a ranker that is no BERT or has none of the budgets, MissingDependency without ONNX Runtime,
    MixLMError where scores are not the same.
    """
    check_bert(model)
    check_installed("bench")
    budgets = [tokens for tokens in options.budgets if tokens <= model.config.tokens]
    if not budgets:
        raise InputError(f"none of the budgets {options.budgets} is within this model's {model.config.tokens}")
    kept = Cells(folder, conditions(model, budgets=budgets, rounds=options.rounds, seconds=options.seconds))
    try:
        todo = [cell for cell in grid_cells(options) if cell.name not in kept.kept]
        if todo:
            say(f"{folder}: exporting cross-encoder and MixLM, checking that scores are the same")
            with TemporaryDirectory() as place:
                _Bench(model, Path(place), options, budgets, kept).measure(todo, folder, progress, say)
        return kept.kept
    finally:
        kept.close()


class _Bench:
    """The contenders, ready to run, and the cells that they fill."""

    def __init__(self, model: MixLM, place: Path, options: GridOptions, budgets: list[int], kept: Cells) -> None:
        self.model, self.options, self.budgets, self.kept = model, options, budgets, kept
        self.shape = shape_of(model.ranker.backbone.config)
        self.words = Words(model.ranker.tokenizer)
        self.documents = max(DOCUMENTS, *options.candidates)
        self.index = random_index(place / "tokens", manifest_for(model), self.documents)
        self.peers = Peers(model, place)
        self.int8 = in_int8(model)
        self.mixlms = mixlms(model, self.int8, exported(model, place / "onnx"), self.index, budgets)

    def measure(self, todo: Sequence[Cell], folder: Path, progress: bool, say: Callable[[str], object]) -> None:
        rate = keep_rate(self.kept)
        self._check_sameness(todo)
        expected = {cell: self._expected(cell, EXPECTED_SHARE * rate) for cell in todo}
        total = sum(expected.values())
        say(f"{folder}: {len(todo)} cells, about {numbers.duration(total)} (guessed from their operations)")
        with progress_bar(100, "grid", "%", enabled=progress) as bar:
            told, done = partial(bar.set_postfix_str, refresh=sys.stderr.isatty()), 0.0
            for cell in todo:
                self.kept.keep(cell.name, self._measure(cell, told))
                done += expected[cell]  # cells differ in length a hundredfold: progress is what was expected of them
                bar.update(round(100 * done / total) - bar.n)
        keep_rate(self.kept)

    def _measure(self, cell: Cell, told: Callable[[str], object]) -> dict[str, Any]:
        chosen = {name: self._settings(name, cell.document, told) for name in (BEST, ONNX)}
        contenders = [
            contender
            for contender in (*self.peers.contenders(chosen), *self.mixlms)
            if contender.most is None or cell.candidates <= contender.most
        ]
        tasks = self._tasks(cell, self.options.rounds)
        taken = interleaved(
            [_entrant(contender, tasks) for contender in contenders],
            rounds=self.options.rounds,
            seconds=self.options.seconds,
            told=told,
        )
        found = [
            {
                "name": contender.name,
                "kind": contender.kind,
                "tokens": contender.tokens,
                "settings": contender.settings,
                "flops": self._flops(contender, cell, tasks[0]),
                "seconds": taken[contender.name],
                "shares": self._shares(contender, tasks),
            }
            for contender in contenders
        ]
        return {**asdict(cell), "full_text_flops": self._flops(None, cell, tasks[0]), "contenders": found}

    def _settings(self, name: str, length: int, told: Callable[[str], object]) -> str:
        """The best settings of a full-text contender at a document length, by a short measurement."""
        cell = f"settings, {name}, {length} tokens"
        if cell not in self.kept.kept:
            told(cell)
            (task,) = self._tasks(Cell(TRIED, length, self.options.query), 1)
            options = self.peers.options(name).items()
            best, seconds = fastest(
                [steady(words, partial(run, task), partial(run, task.first(1))) for words, run in options]
            )
            self.kept.keep(cell, {"best": best, "seconds": seconds})
        return str(self.kept.kept[cell]["best"])

    def _check_sameness(self, todo: Sequence[Cell]) -> None:
        """At every query length, in the largest company of candidates that is timed with it."""
        largest_of = {cell.query: cell for cell in todo}  # they rise
        tasks = [self._tasks(cell, 1)[0] for cell in largest_of.values()]
        mixlm = check_mixlm(self.model, self.index, tasks, self.budgets, CHECKED)
        int8 = off_in_int8(self.model, self.int8, self.index, tasks, self.budgets)
        onnx = check_onnx(self.peers, [task.first(CHECKED) for task in tasks])
        self.kept.keep("sameness", {"mixlm": mixlm, "int8": int8, "onnx": onnx})

    def _tasks(self, cell: Cell, count: int) -> list[Task]:
        """A query and candidates for every round, of the wished numbers of tokens; no two queries are the same."""
        draw = Random(cell.name)
        texts = self.words.texts(cell.candidates, cell.document, draw)
        return [
            Task(
                self.words.text(cell.query, draw),
                random_docids(cell.candidates, self.documents, draw),
                draw.sample(texts, len(texts)),
            )
            for _ in range(count)
        ]

    def _shares(self, contender: Contender, tasks: Sequence[Task]) -> dict[str, float] | None:
        """Where the time of MixLM goes; None for the others, and where its packed pass is not what it spends it in."""
        if contender.model is None:
            return None
        found = shares(contender.model, [partial(contender.run, task) for task in tasks[:LOOKS_INSIDE]])
        return None if found is None else asdict(found)

    def _flops(self, contender: Contender | None, cell: Cell, task: Task) -> float:
        """Of a query with all its candidates; of full text for None."""
        if contender is None or contender.tokens is None:
            return whole_flops(self.shape, self.peers.plain.positions(task.query, task.texts[0]), cell.candidates)
        ranker = self.model.ranker
        prefix = len(ranker.prefixes([task.query])[0])
        shared, own = ranker.positions(prefix, contender.tokens)
        below, above = (replace(self.shape, layers=n) for n in (ranker.mix_layer, ranker.layers - ranker.mix_layer))
        flops = whole_flops(below, prefix, 1)
        if contender.kind == "reference":  # shares no prefix
            return flops + whole_flops(above, shared + own, cell.candidates)
        return flops + shared_prefix_flops(above, shared, own, cell.candidates)

    def _expected(self, cell: Cell, rate: float) -> float:
        """About the seconds that a cell takes; int8 is taken for half as fast again as float32."""
        (task,) = self._tasks(Cell(1, cell.document, cell.query), 1)
        text = self._flops(None, cell, task) / rate
        runs = [text, text, text / 1.5, *(self._flops(each, cell, task) / rate for each in self.mixlms)]
        rounds = sum(run * planned_rounds(run, self.options.rounds, self.options.seconds) for run in runs)
        first_of_its_length = cell == min(each for each in grid_cells(self.options) if each.document == cell.document)
        tried = len(self.peers.options(BEST)) + len(self.peers.options(ONNX)) if first_of_its_length else 0
        return rounds + 2 * tried * TRIED * text / cell.candidates


def _entrant(contender: Contender, tasks: Sequence[Task]) -> Entrant:
    warm = tasks[-1].first(WARM) if contender.tokens is None else tasks[-1]
    return Entrant(contender.name, lambda number: contender.run(tasks[number]), partial(contender.run, warm))
