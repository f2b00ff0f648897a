"""Tables of systems, and their forms as text: for a terminal, in Markdown, in LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.systems.protocol import Kind

__all__ = ["EMPTY", "Cell", "Column", "Columns", "Line", "Table", "aligned", "field", "filled", "latex", "lined_up"]
__all__ += ["markdown", "markdown_escaped", "number"]

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "▲": r"$^{\Uparrow}$",  # arrows are in plain LaTeX, triangles are not
    "△": r"$^{\uparrow}$",
    "▽": r"$^{\downarrow}$",
    "▼": r"$^{\Downarrow}$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    order: float | None  # what the column is sorted by; None for a cell without a value, which stays last
    best: bool = False
    mark: str = ""
    small: str = ""  # behind the text: the interval of a mean


EMPTY = Cell("–", None)


def number(value: float | None, text: Callable[[float], str] = numbers.measure) -> Cell:
    """The cell of a number, written by ``text``."""
    return EMPTY if value is None else Cell(text(value), value)


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    head: str
    hint: str = ""  # explains the head
    marked: bool = False  # keeps room for a mark behind each number, so that digits stand in line
    best: bool = False  # the highest cells are bold, apart from the oracle's


@dataclass(frozen=True)
class Line:
    """One row of a table: a system and its cells. ``note`` stands small behind its name."""

    name: str
    kind: Kind
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


Filling = tuple[Column, Callable[[Any], Cell]]  # a column, and how its cells are made
Columns = list[Filling]


def field(path: str, head: str, hint: str, text: Callable[[Any], str] = numbers.measure) -> Filling:
    """The column of a number: ``path`` leads from a system to it, over parts that may be None."""

    def cell(of: Any) -> Cell:
        for name in path.split("."):
            of = None if of is None else getattr(of, name)
        return number(of, text)

    return Column(head, hint), cell


def filled(
    caption: str, columns: Columns, rows: Sequence[tuple[str, Kind, Any]], note: Callable[[Any], str] = lambda _: ""
) -> Table | None:
    """One line a row (name, kind, what columns and note are made from), without columns and lines that hold no value;
    None if nothing is left.
    """
    made = [(column, [cell(of) for _, _, of in rows]) for column, cell in columns]
    made = [(column, cells) for column, cells in made if any(cell.order is not None for cell in cells)]
    of_rows = zip(*(_with_best(cells, rows) if column.best else cells for column, cells in made), strict=True)
    lines = [
        Line(name, kind, cells, note(of))
        for (name, kind, of), cells in zip(rows, of_rows, strict=False)
        if any(cell.order is not None for cell in cells)
    ]
    return Table(caption, tuple(column for column, _ in made), tuple(lines)) if lines else None


def _with_best(cells: Sequence[Cell], rows: Sequence[tuple[str, Kind, Any]]) -> list[Cell]:
    """What looks equal to the highest is equally best."""
    rivals = [kind != "oracle" for _, kind, _ in rows]
    own = [cell for cell, rival in zip(cells, rivals, strict=True) if rival and cell.order is not None]
    top = max(own, key=lambda cell: cell.order or 0.0, default=EMPTY).text
    pairs = zip(cells, rivals, strict=True)
    return [replace(cell, best=rival and cell is not EMPTY and cell.text == top) for cell, rival in pairs]


def lined_up(rows: Sequence[Sequence[str]]) -> str:
    """Columns in line, for a terminal: the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def aligned(table: Table) -> str:
    """The table for a terminal, digits under digits: numbers that may have a mark leave room for it."""
    rows = [["system", *(f"{column.head} " if column.marked else column.head for column in table.columns)]]
    for line in table.lines:
        pairs = zip(table.columns, line.cells, strict=True)
        rows.append([line.name, *(cell.text + (cell.mark or " ") * column.marked for column, cell in pairs)])
    return lined_up(rows)


def markdown(table: Table) -> str:
    heads, *rows = _marked_up(table, markdown_escaped, "**{}**".format, str)
    lines = [heads, ["---", *["---:"] * len(table.columns)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(table: Table) -> str:
    heads, *rows = _marked_up(table, latex_escaped, r"\textbf{{{}}}".format, r"{{\scriptsize {}}}".format)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_escaped(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _marked_up(
    table: Table, escape: Callable[[str], str], bold: Callable[[str], str], small: Callable[[str], str]
) -> list[list[str]]:
    """Heads and rows, escaped: best cells bold, what stands small in brackets."""

    def with_small(text: str, behind: str) -> str:
        return f"{text} {small(f'({escape(behind)})')}" if behind else text

    def text(cell: Cell) -> str:
        return with_small((bold if cell.best else str)(escape(cell.text)) + escape(cell.mark), cell.small)

    heads = ["system", *(escape(column.head) for column in table.columns)]
    return [heads, *([with_small(escape(line.name), line.note), *map(text, line.cells)] for line in table.lines)]


def markdown_escaped(text: str) -> str:
    """One line of text whose characters mean nothing to Markdown, in a table too.

    >>> print(markdown_escaped("a|b *c* <d>"))
    a\\|b \\*c\\* \\<d\\>
    """
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", " ".join(text.split()))


def latex_escaped(text: str) -> str:
    r"""
    >>> print(latex_escaped("50% of R&D_x"))
    50\% of R\&D\_x
    """
    return "".join(LATEX_SPECIAL.get(char, char) for char in " ".join(text.split()))
