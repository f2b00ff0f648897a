"""What every benchmark writes: results.json with where and how it was measured, and a Markdown page of tables."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.data.lines import writing
from mixlm_rerank.eval.bench.timing import Spread
from mixlm_rerank.eval.tables import markdown_escaped
from mixlm_rerank.systems.machine import machine

__all__ = ["PAGE", "RESULTS", "between", "markdown_rows", "write_page", "write_results"]

RESULTS, PAGE = "results.json", "results.md"
NONE = "–"


def between(values: Spread) -> str:
    """The quartiles.

    >>> between(Spread(2.0, 1.5, 2.25))
    '1.50 to 2.25'
    """
    return f"{numbers.speed(values.low)} to {numbers.speed(values.high)}"


def write_results(folder: Path, model: str, values: Mapping[str, Any]) -> None:
    """``results.json``. ``model``: its name."""
    head = {
        "created": datetime.now(UTC).isoformat("T", "seconds"),
        "command": shlex.join(["mixlm-rerank", *sys.argv[1:]]),
        "version": version("mixlm-rerank"),
        "machine": machine(),
        "model": model,
    }
    with writing(folder / RESULTS) as file:
        json.dump({**head, **values}, file, indent=1)


def write_page(folder: Path, title: str, parts: Sequence[str]) -> str:
    """``results.md``: a title, what it was measured on, and the parts; returned as well."""
    where = ", ".join(f"{name} {value}" for name, value in machine().items())
    page = "\n\n".join([f"# {title}", markdown_escaped(where), *parts]) + "\n"
    with writing(folder / PAGE) as file:
        file.write(page)
    return page


def markdown_rows(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    """A table; the first column is text, the others are numbers. None: nothing to say.

    >>> print(markdown_rows(["a", "b"], [["x|y", "1"], ["z", None]]))
    | a | b |
    | --- | ---: |
    | x\\|y | 1 |
    | z | – |
    """
    lines = [list(map(markdown_escaped, columns)), ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[NONE if cell is None else markdown_escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
