"""A run of a benchmark: cells that are measured once and saved one by one, and the page made from them.

An interrupted benchmark loses only the cell in progress. Entrants take turns, so that disturbances of the machine
affect all of them equally.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from mixlm_rerank import numbers
from mixlm_rerank.data.lines import json_lines, write_json, writing
from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.eval.bench.machine import matrix_rate
from mixlm_rerank.eval.tables import markdown_escaped
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.machine import machine

__all__ = ["Clock", "Entrant", "Run", "Spread", "check_same", "fastest", "interleaved", "over", "spread", "work_done"]

PRODUCT = "matrix product"
REST_SECONDS = 0.02  # pause before every turn: a library's worker threads keep spinning for a moment after work
Clock = Callable[[], float]  # returns elapsed seconds
Spread = dict[str, float]  # median, lower and upper quartile of repeated measurements


class Run:
    """A benchmark. ``folder`` holds a file of its finished cells: conditions on the first line, then one cell per line.

    Conditions are shared by all cells: weights of ``model``, ``settings``, machine and version. For the settings
    ``rounds`` and ``seconds`` see :func:`interleaved`. ``kept``: the cells by name, as read back from JSON.

    Raises InputError if the folder has cells measured under other conditions, or cannot be written.
    """

    def __init__(self, folder: Path, model: MixLM | None, quiet: bool = True, **settings: Any) -> None:
        self.folder, self.path, self._quiet = folder, folder / "cells.jsonl", quiet
        self._often = {"rounds": settings.get("rounds", 1), "seconds": settings.get("seconds", inf)}
        weights = {} if model is None else {"weights": weights_hash(model)}
        self._here = _as_json({**machine(), "mixlm-rerank": version("mixlm-rerank"), **weights, **settings})
        if not self.path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._write({})
        first, *cells = [row for _, row in json_lines(self.path)] or [{}]
        there = first.get("conditions", {})
        for name in dict.fromkeys([*there, *self._here]):
            if there.get(name) != self._here.get(name):
                raise InputError(
                    f"{self.path} was measured under other conditions ({name}: {there.get(name)} there, "
                    f"{self._here.get(name)} here): choose another --output, or delete that file"
                )
        self.kept: dict[str, Any] = {row["cell"]: row["values"] for row in cells}

    def cell(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """The cell of that name; if there is none, the result of ``work(*arguments)`` is kept and returned."""
        return self.kept[name] if name in self.kept else self.keep(name, work(*arguments))

    def keep(self, name: str, values: Any) -> Any:
        """Save a cell; returns it as read back from JSON. Raises InputError if it cannot be written."""
        kept = self.kept | {name: _as_json(values)}
        try:
            self._write(kept)
        except InputError as error:
            raise InputError(
                f"{error}; {len(self.kept)} cells are safe in it: make room and run the same command again to go on"
            ) from None
        self.kept = kept
        return kept[name]

    def rate(self, **of: Any) -> None:
        """Measure :func:`matrix_rate` and keep it; called before and after the other measurements."""
        self.keep(f"{PRODUCT} {len(self.rates) + 1}", matrix_rate(**of))

    @property
    def rates(self) -> list[float]:
        """All matrix rates kept, in order of measurement."""
        return [float(rate) for cell, rate in self.kept.items() if cell.startswith(PRODUCT)]

    def say(self, text: str) -> None:
        if not self._quiet:
            tqdm.write(f"{self.folder}: {text}", file=sys.stderr)

    def timed(self, task: str, entrants: Sequence[Entrant]) -> list[dict[str, Any]]:
        """Time entrants by :func:`interleaved`: name, facts and ``seconds`` of each. Shows an estimate, and a
        progress bar over all turns, which ends early if some entrants take fewer.
        """

        def told(name: str) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update(1)

        def expected(total: float) -> None:
            self.say(f"{task}, about {numbers.duration(total)} (going by the first round)")

        turns = len(entrants) * (self._often["rounds"] + 1)
        with progress_bar(turns, task, "turns", enabled=not self._quiet) as bar:
            taken = interleaved(entrants, **self._often, told=told, expected=expected)
        return [{"name": one.name, **one.facts, "seconds": taken[one.name]} for one in entrants]

    def page(self, title: str, model: str, values: Mapping[str, Any], parts: Sequence[str]) -> str:
        """Write ``results.json`` (from ``values``) and ``results.md`` (from ``parts``); returns the Markdown.

        Both describe the machine; ``model``: name of the model measured.
        """
        head = {
            "created": datetime.now(UTC).isoformat("T", "seconds"),
            "command": shlex.join(["mixlm-rerank", *sys.argv[1:]]),
            "version": version("mixlm-rerank"),
            "machine": machine(),
            "model": model,
        }
        where = markdown_escaped(", ".join(f"{name} {value}" for name, value in machine().items()))
        text = "\n\n".join([f"# {title}", where, *parts]) + "\n"
        write_json(self.folder / "results.json", {**head, **values})
        with writing(self.folder / "results.md") as file:
            file.write(text)
        return text

    def _write(self, kept: Mapping[str, Any]) -> None:
        """Write all cells to a new file that replaces the old one: the file is never half written."""
        rows = [{"conditions": self._here}, *({"cell": name, "values": values} for name, values in kept.items())]
        with writing(self.path) as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)


def check_same(found: float, tolerance: float, what: str) -> float:
    """Check sameness before timing: returns the difference. Raises MixLMError if it is not within tolerance."""
    if not found <= tolerance:
        raise MixLMError(f"nothing is timed: {what} differ by {found:.2g}, more than {tolerance:g}")
    return found


def _as_json(values: Any) -> Any:
    """Values as read back from JSON: tuples become lists, dataclasses become objects."""
    return json.loads(json.dumps(values, default=asdict))


@dataclass(frozen=True)
class Entrant:
    """A participant in a measurement."""

    name: str
    runs: Sequence[Callable[[], object]]  # the work of each round; after the last run comes the first again
    warm_up: Callable[[], object] | None = None  # default: the last run
    facts: Mapping[str, Any] = field(default_factory=dict)  # further values kept with its times


def spread(values: Sequence[float], scale: float = 1.0) -> Spread:
    """Median and quartiles of the values times ``scale``; quartiles are interpolated linearly.

    >>> spread([1.0, 2.0, 3.0, 5.0, 9.0])
    {'low': 2.0, 'median': 3.0, 'high': 5.0}
    """
    quartiles = zip(("low", "median", "high"), np.percentile(values, [25, 50, 75]), strict=True)
    return {name: scale * float(value) for name, value in quartiles}


def over(amount: float, spread: Spread) -> Spread:
    """``amount`` divided by a spread, as in speeds from seconds.

    >>> over(8, {"low": 1.0, "median": 2.0, "high": 4.0})
    {'low': 2.0, 'median': 4.0, 'high': 8.0}
    """
    return {"low": amount / spread["high"], "median": amount / spread["median"], "high": amount / spread["low"]}


def interleaved(
    entrants: Sequence[Entrant],
    *,
    rounds: int,
    seconds: float = inf,
    clock: Clock = time.perf_counter,
    rest: Callable[[], object] = lambda: time.sleep(REST_SECONDS),
    told: Callable[[str], object] = lambda name: None,
    expected: Callable[[float], object] = lambda seconds: None,
) -> dict[str, list[float]]:
    """Seconds of every round of every entrant, by name.

    One warm-up each; then rounds in which all take turns. Every second round is in reverse order, so that no entrant
    always follows the same one.

    Args:
        seconds: an entrant whose rounds would take longer takes part in fewer, evenly spread; always in the first.
        rest: called before every turn, not timed. told: called before every turn with the entrant's name.
        expected: called after the first round with the estimated seconds of all rounds.
    """
    for entrant in entrants:
        told(entrant.name)
        (entrant.warm_up or entrant.runs[-1])()
    taken: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    planned = dict.fromkeys(taken, rounds)
    for number in range(rounds):
        for entrant in entrants if number % 2 == 0 else reversed(entrants):
            own = planned[entrant.name]
            if number * own // rounds > (number - 1) * own // rounds:  # in the first round: 0 > -1
                told(entrant.name)
                rest()
                started = clock()
                entrant.runs[number % len(entrant.runs)]()
                taken[entrant.name].append(clock() - started)
        if number == 0:
            firsts = {name: max(first, 1e-9) for name, (first,) in taken.items()}
            planned = {name: max(1, int(min(rounds, seconds / first))) for name, first in firsts.items()}
            expected(sum(planned[name] * first for name, first in firsts.items()))
    return taken


def fastest(options: Sequence[Entrant], *, clock: Clock = time.perf_counter) -> str:
    """Measure two rounds of each option; returns the name of the one with the fastest round."""
    taken = interleaved(options, rounds=2, clock=clock)
    return min(taken, key=lambda name: min(taken[name]))


def work_done(
    seconds: Sequence[float], flops: float | None = None, rate: float = 1.0, **amounts: float
) -> dict[str, Any]:
    """Column values from an entrant's seconds in all rounds: the rate of each of ``amounts`` (``documents=100``),
    rounds, milliseconds; with ``flops`` also GFLOP/s and their share of the machine's ``rate``.

    >>> work_done([0.5, 0.25, 0.125], documents=10)
    {'documents_per_second': 40.0, 'rounds': 3, 'milliseconds': {'low': 187.5, 'median': 250.0, 'high': 375.0}}
    """
    middle = median(seconds)
    found: dict[str, Any] = {f"{name}_per_second": amount / middle for name, amount in amounts.items()}
    found |= {"rounds": len(seconds), "milliseconds": spread(seconds, 1e3)}
    return found if not flops else found | {"gflops": flops / middle / 1e9, "of_machine": flops / middle / rate}
