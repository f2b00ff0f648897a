"""What the page is made of: tables of systems, pictures with their data, findings in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mixlm_rerank.systems.protocol import Kind

__all__ = ["EMPTY", "Cell", "Column", "Finding", "Line", "Picture", "Table", "listed", "value_cell"]


@dataclass(frozen=True)
class Cell:
    """One cell. ``order``: what the column is sorted by; None for a cell without a value, which stays last.

    ``small`` stands small behind the text: the interval of a mean.
    """

    text: str
    order: float | None
    best: bool = False
    mark: str = ""
    small: str = ""


EMPTY = Cell("–", None)


def value_cell(value: float | None, text: Callable[[float], str]) -> Cell:
    """A number, written by ``text``."""
    return EMPTY if value is None else Cell(text(value), value)


@dataclass(frozen=True)
class Column:
    """``hint`` explains the head; ``marked`` keeps room for a mark behind each number, so that digits stand in line."""

    head: str
    hint: str = ""
    marked: bool = False


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
    corner: str = "system"

    def pruned(self) -> Table | None:
        """Without columns and lines that hold no value; None if nothing is left."""
        kept = [i for i in range(len(self.columns)) if any(line.cells[i].order is not None for line in self.lines)]
        lines = tuple(
            replace(line, cells=tuple(line.cells[i] for i in kept))
            for line in self.lines
            if any(line.cells[i].order is not None for i in kept)
        )
        return replace(self, columns=tuple(self.columns[i] for i in kept), lines=lines) if lines else None


@dataclass(frozen=True)
class Picture:
    """A figure. ``svg`` is markup of ours, safe to put in the page; ``data``: what it shows, for who cannot see it."""

    svg: str
    title: str
    caption: str
    data: Table


@dataclass(frozen=True)
class Finding:
    """A sentence or two of the summary, and the word that they stand under."""

    head: str
    text: str


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["SciFact"]), listed(["SciFact", "FiQA", "ArguAna"])
    ('SciFact', 'SciFact, FiQA and ArguAna')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
