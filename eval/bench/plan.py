"""The cells of the grid: what is varied, and in which order it is measured."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cell", "GridOptions", "grid_cells"]

SIDE = (256, 100)  # document length and candidates of the cells with other queries


@dataclass(frozen=True)
class GridOptions:
    """Attributes:
    lengths: tokens of a document.
    candidates: of a query.
    query: tokens of a query.
    other_queries: query lengths that are measured at 256 tokens and 100 candidates only.
    budgets: token budgets; those that the model has are measured.
    rounds, seconds: see :func:`mixlm_rerank.eval.bench.timing.interleaved`; seconds are of a contender in a cell.
    """

    lengths: tuple[int, ...] = (64, 128, 256, 512)
    candidates: tuple[int, ...] = (10, 100, 1000)
    query: int = 16
    other_queries: tuple[int, ...] = (8, 64)
    budgets: tuple[int, ...] = (1, 2, 4, 8)
    rounds: int = 9
    seconds: float = 30.0


@dataclass(frozen=True, order=True)
class Cell:
    """Attributes:
    candidates: of the query.
    document, query: their lengths in tokens.
    """

    candidates: int
    document: int
    query: int

    @property
    def name(self) -> str:
        """
        >>> Cell(100, 256, 16).name
        '256 tokens, 100 candidates, query of 16'
        """
        return f"{self.document} tokens, {self.candidates} candidates, query of {self.query}"


def grid_cells(options: GridOptions) -> list[Cell]:
    """All cells, quick ones first."""
    cells = [Cell(count, length, options.query) for length in options.lengths for count in options.candidates]
    if SIDE[0] in options.lengths and SIDE[1] in options.candidates:
        cells += [Cell(SIDE[1], SIDE[0], query) for query in options.other_queries]
    return sorted(set(cells))
