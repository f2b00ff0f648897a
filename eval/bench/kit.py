"""A run of a benchmark: cells that are measured once and kept one by one, and the page that is made of them.

An interrupted benchmark loses the cell that it was at, and nothing else.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.eval.bench.operations import matrix_rate
from mixlm_rerank.eval.bench.timing import Entrant, Spread, interleaved, spread
from mixlm_rerank.eval.tables import markdown_escaped
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.machine import machine

__all__ = ["Run", "check_same", "column", "quartiles", "table", "work_done"]

CELLS, RESULTS, PAGE = "cells.jsonl", "results.json", "results.md"
PRODUCT = "matrix product"


class Run:
    """A benchmark in ``folder``, where its finished cells are: the conditions on the first line, then one a line.

    ``model`` and ``settings``: with the machine and the version, what all cells have in common. A context manager.

    Raises InputError if the folder holds cells of other conditions, or cannot be written.

    Attributes:
        kept: the cells by name, as JSON gives them back.
    """

    def __init__(self, folder: Path, model: MixLM | None, quiet: bool = True, **settings: object) -> None:
        self.folder, self.kept = folder, dict[str, Any]()
        self._quiet, self._path = quiet, folder / CELLS
        weights = {} if model is None else {"weights": weights_hash(model)}
        conditions = _as_json({**machine(), "mixlm-rerank": version("mixlm-rerank"), **weights, **settings})
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = _whole_lines(self._path)
            there = json.loads(lines[0]).get("conditions", {}) if lines else conditions
            for name in dict.fromkeys([*there, *conditions]):
                if there.get(name) != conditions.get(name):
                    raise InputError(
                        f"{self._path} was measured under other conditions ({name}: {there.get(name)} there, "
                        f"{conditions.get(name)} here): choose another --output, or delete that file"
                    )
            self.kept = {row["cell"]: row["values"] for row in map(json.loads, lines[1:])}
            self._file = self._path.open("a", encoding="ascii")
            self._file.truncate(sum(map(len, lines)))  # a line that was cut off goes
            if not lines:
                self._write({"conditions": conditions})
        except OSError as error:
            raise InputError(f"cannot write into {folder}: {error.strerror or error}; choose another folder") from None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # of a line that could not be written; that was said
            self._file.close()

    def cell(self, name: str, work: Callable[[], Any]) -> Any:
        """What is kept under that name; if nothing is, what ``work`` finds, which is kept."""
        return self.kept[name] if name in self.kept else self.keep(name, work())

    def keep(self, name: str, values: Any) -> Any:
        """Write a cell down; returns it as it will be read. Raises InputError if it cannot be written."""
        try:
            self._write({"cell": name, "values": values})
        except OSError as error:
            raise InputError(
                f"cannot write {self._path}: {error.strerror or error}; {len(self.kept)} cells are safe in it: make "
                "room and run the same command again to go on"
            ) from None
        self.kept[name] = _as_json(values)
        return self.kept[name]

    def rate(self, **of: Any) -> float:
        """:func:`matrix_rate`, measured once more: at the start and at the end of what is measured."""
        rate = matrix_rate(**of)
        self.keep(f"{PRODUCT} {len(self.rates) + 1}", rate)
        return rate

    @property
    def rates(self) -> list[float]:
        """All that was measured, the first ones first."""
        return [float(rate) for cell, rate in self.kept.items() if cell.startswith(PRODUCT)]

    def say(self, text: str) -> None:
        if not self._quiet:
            print(f"{self.folder}: {text}", file=sys.stderr)

    def bar(self, total: int, task: str, unit: str) -> Any:
        return progress_bar(total, task, unit, enabled=not self._quiet)

    def timed(self, task: str, entrants: Sequence[Entrant], *, rounds: int, seconds: float = float("inf")) -> Any:
        """:func:`interleaved`, with a bar over all turns; it ends early where some take part in fewer rounds."""
        with self.bar(len(entrants) * (rounds + 1), task, "turns") as bar:

            def told(name: str) -> None:
                bar.set_postfix_str(name, refresh=False)
                bar.update(1)

            return interleaved(entrants, rounds=rounds, seconds=seconds, told=told)

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
        with writing(self.folder / RESULTS) as file:
            json.dump({**head, **values}, file, indent=1)
        with writing(self.folder / PAGE) as file:
            file.write(text)
        return text

    def _write(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


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


Column = Callable[[Any], str | None]


def table(columns: Mapping[str, Column], rows: Sequence[Any]) -> str:
    """In Markdown, each column by its heading; the first is text, the others are numbers. None: nothing to say.

    >>> print(table({"a": column(str, "a"), "b": column(str, "b", "c")}, [{"a": "x|y", "b": {"c": 1}}, {"a": "z"}]))
    | a | b |
    | --- | ---: |
    | x\\|y | 1 |
    | z | – |
    """
    lines = [list(map(markdown_escaped, columns)), ["---", *["---:"] * (len(columns) - 1)]]
    for row in rows:
        cells = [shown(row) for shown in columns.values()]
        lines.append(["–" if cell is None else markdown_escaped(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def column(shown: Callable[[Any], str], *path: str | int) -> Column:
    """What is under these keys of a row, as text; None if nothing is."""

    def of(row: Any) -> str | None:
        for key in path:
            row = row[key] if isinstance(key, int) else row.get(key)
            if row is None:
                return None
        return shown(row)

    return of


def quartiles(spread: Spread) -> str:
    """
    >>> quartiles({"low": 1.5, "median": 2.0, "high": 2.25})
    '1.50 to 2.25'
    """
    return f"{numbers.speed(spread['low'])} to {numbers.speed(spread['high'])}"


def _as_json(values: Any) -> Any:
    """Tuples become lists."""
    return json.loads(json.dumps(values))


def _whole_lines(path: Path) -> list[str]:
    """The lines up to the first that is not whole: cut off by a kill."""
    whole: list[str] = []
    for line in path.read_text(encoding="ascii", errors="replace").splitlines(True) if path.is_file() else []:
        try:
            if not line.endswith("\n") or not isinstance(json.loads(line), dict):
                break
        except ValueError:
            break
        whole.append(line)
    return whole
