"""Tables of systems, and their text formats: terminal, Markdown, LaTeX (booktabs)."""

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
    order: float | None  # sort key of the column; None for a cell without a value, which stays last
    best: bool = False
    mark: str = ""
    small: str = ""  # in small type after the text: the interval of a mean


EMPTY = Cell("–", None)


def number(value: float | None, text: Callable[[float], str] = numbers.measure) -> Cell:
    """The cell of a number, formatted by ``text``."""
    return EMPTY if value is None else Cell(text(value), value)


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    head: str
    hint: str = ""  # explains the head
    marked: bool = False  # leaves room for a mark after each number, so that digits align
    best: bool = False  # the highest cells are bold, except the oracle's


@dataclass(frozen=True)
class Line:
    """One row of a table: a system and its cells. ``note`` follows the name in small type."""

    name: str
    kind: Kind
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


Filling = tuple[Column, Callable[[Any], Cell]]  # a column, and the function that makes its cells
Columns = list[Filling]


def field(path: str, head: str, hint: str, text: Callable[[Any], str] = numbers.measure) -> Filling:
    """A column of numbers; ``path``: attributes from a system to its number; those on the way may be None."""

    def cell(of: Any) -> Cell:
        for name in path.split("."):
            of = None if of is None else getattr(of, name)
        return number(of, text)

    return Column(head, hint), cell


def filled(
    caption: str, columns: Columns, rows: Sequence[tuple[str, Kind, Any]], note: Callable[[Any], str] = lambda _: ""
) -> Table | None:
    """A table with one line per row (name, kind, object that columns and note are made from). Columns and lines without
    values are dropped; None if nothing is left.
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
    """Mark the best cells: all whose text equals that of the highest, except the oracle's."""
    rivals = [kind != "oracle" for _, kind, _ in rows]
    own = [cell for cell, rival in zip(cells, rivals, strict=True) if rival and cell.order is not None]
    top = max(own, key=lambda cell: cell.order or 0.0, default=EMPTY).text
    pairs = zip(cells, rivals, strict=True)
    return [replace(cell, best=rival and cell is not EMPTY and cell.text == top) for cell, rival in pairs]


def lined_up(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns for a terminal: the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def aligned(table: Table) -> str:
    """The table for a terminal. Columns with marks leave room for them, so that digits align."""
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
    """Escaped heads and rows: best cells in bold, small text in brackets."""

    def with_small(text: str, behind: str) -> str:
        return f"{text} {small(f'({escape(behind)})')}" if behind else text

    def text(cell: Cell) -> str:
        return with_small((bold if cell.best else str)(escape(cell.text)) + escape(cell.mark), cell.small)

    heads = ["system", *(escape(column.head) for column in table.columns)]
    return [heads, *([with_small(escape(line.name), line.note), *map(text, line.cells)] for line in table.lines)]


def markdown_escaped(text: str) -> str:
    """Text on one line, with Markdown's special characters escaped, including those of tables.

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
