"""A run of a benchmark: cells that are measured once and kept one by one, and the page that is made of them.

An interrupted benchmark loses the cell that it was at, and nothing else.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from mixlm_rerank import numbers
from mixlm_rerank.data.lines import json_lines, writing
from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.eval.bench.machine import matrix_rate
from mixlm_rerank.eval.bench.timing import Entrant, interleaved, spread
from mixlm_rerank.eval.tables import markdown_escaped
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.machine import machine

__all__ = ["Run", "check_same", "work_done"]

PRODUCT = "matrix product"


class Run:
    """A benchmark in ``folder``, where its finished cells are: the conditions on the first line, then one a line.

    ``model`` and ``settings``: with the machine and the version, what all cells have in common; ``rounds`` and
    ``seconds`` of them: see :func:`interleaved`. ``kept``: the cells by name, as JSON gives them back.

    Raises InputError if the folder holds cells of other conditions, or cannot be written.
    """

    def __init__(self, folder: Path, model: MixLM | None, quiet: bool = True, **settings: Any) -> None:
        self.folder, self.path, self.kept = folder, folder / "cells.jsonl", dict[str, Any]()
        self._quiet, self._rounds, self._seconds = quiet, settings.get("rounds", 1), settings.get("seconds", inf)
        weights = {} if model is None else {"weights": weights_hash(model)}
        here = _as_json({**machine(), "mixlm-rerank": version("mixlm-rerank"), **weights, **settings})
        self._first = {"conditions": here}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write into {folder}: {error.strerror or error}; choose another folder") from None
        if not self.path.exists():
            self._write()
        first, *cells = [row for _, row in json_lines(self.path)] or [{}]
        there = first.get("conditions", {})
        for name in dict.fromkeys([*there, *here]):
            if there.get(name) != here.get(name):
                raise InputError(
                    f"{self.path} was measured under other conditions ({name}: {there.get(name)} there, "
                    f"{here.get(name)} here): choose another --output, or delete that file"
                )
        self.kept = {row["cell"]: row["values"] for row in cells}

    def cell(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """What is kept under that name; if nothing is, what ``work(*arguments)`` finds, which is kept."""
        return self.kept[name] if name in self.kept else self.keep(name, work(*arguments))

    def keep(self, name: str, values: Any) -> Any:
        """Write a cell down; returns it as it will be read. Raises InputError if it cannot be written."""
        before = self.kept
        self.kept = before | {name: _as_json(values)}
        try:
            self._write()
        except InputError as error:
            self.kept = before
            raise InputError(
                f"{error}; {len(before)} cells are safe in it: make room and run the same command again to go on"
            ) from None
        return self.kept[name]

    def rate(self, **of: Any) -> None:
        """Keep :func:`matrix_rate`, measured once more: at the start and at the end of what is measured."""
        self.keep(f"{PRODUCT} {len(self.rates) + 1}", matrix_rate(**of))

    @property
    def rates(self) -> list[float]:
        """All that was measured, the first ones first."""
        return [float(rate) for cell, rate in self.kept.items() if cell.startswith(PRODUCT)]

    def say(self, text: str) -> None:
        if not self._quiet:
            tqdm.write(f"{self.folder}: {text}", file=sys.stderr)

    def bar(self, total: int, task: str, unit: str) -> Any:
        return progress_bar(total, task, unit, enabled=not self._quiet)

    def timed(self, task: str, entrants: Sequence[Entrant]) -> dict[str, list[float]]:
        """:func:`interleaved`, with an estimate and a bar over all turns, which ends early where some take fewer."""
        rounds = self._rounds
        with self.bar(len(entrants) * (rounds + 1), task, "turns") as bar:

            def told(name: str) -> None:
                bar.set_postfix_str(name, refresh=False)
                bar.update(1)

            def expected(total: float) -> None:
                self.say(f"{task}, about {numbers.duration(total)} (going by the first round)")

            return interleaved(entrants, rounds=rounds, seconds=self._seconds, told=told, expected=expected)

    def page(self, title: str, model: str, values: Mapping[str, Any], parts: Sequence[str]) -> str:
        """Write ``results.json`` (of ``values``) and ``results.md`` (of ``parts``), which is returned.

        Both say where it was measured; ``model``: the name of what was.
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
        with writing(self.folder / "results.json") as file:
            json.dump({**head, **values}, file, indent=1)
        with writing(self.folder / "results.md") as file:
            file.write(text)
        return text

    def _write(self) -> None:
        """All cells anew, into a file that takes the place of the one before: none is ever half written."""
        with writing(self.path) as file:
            for line in (self._first, *({"cell": name, "values": values} for name, values in self.kept.items())):
                file.write(json.dumps(line) + "\n")


def check_same(found: float, tolerance: float, what: str) -> float:
    """Sameness before speed: the difference found. Raises MixLMError if it is not within tolerance."""
    if not found <= tolerance:
        raise MixLMError(f"nothing is timed: {what} differ by {found:.2g}, more than {tolerance:g}")
    return found


def work_done(seconds: Sequence[float], flops: float, rate: float) -> dict[str, Any]:
    """What follows of an entrant's seconds in all rounds; ``rate``: of matrix products, operations a second."""
    a_second = flops / median(seconds)
    return {
        "rounds": len(seconds),
        "milliseconds": spread(seconds, 1e3),
        "gflops": a_second / 1e9,
        "of_machine": a_second / rate,
    }


def _as_json(values: Any) -> Any:
    """Tuples become lists, dataclasses objects."""
    return json.loads(json.dumps(values, default=asdict))
