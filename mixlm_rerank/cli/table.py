"""A table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

__all__ = ["table"]


def table(corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """Print rows under their columns, numbers flush right."""
    width = max(len(corner), *map(len, rows), 0)
    widths = [max(9, len(column)) for column in columns]
    for name, cells in {corner: columns, **rows}.items():
        typer.echo("  ".join([name.ljust(width), *(c.rjust(w) for c, w in zip(cells, widths, strict=True))]))
