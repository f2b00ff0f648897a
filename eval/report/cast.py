"""Which systems the pictures show in colour, one of each kind, and how each kind looks."""

from __future__ import annotations

from dataclasses import dataclass

from mixlm_rerank.eval.standings import Row, Standings
from mixlm_rerank.systems.protocol import Kind

__all__ = ["LOOKS", "Look", "best_of", "cast", "legible"]


@dataclass(frozen=True)
class Look:
    """Colour (Okabe and Ito's, told apart by the colour-blind) and shape, as matplotlib's marker and as an SVG path.

    The path lies in a box from -6 to 6.
    """

    colour: str
    marker: str
    path: str


LOOKS: dict[Kind, Look] = {
    "first stage": Look("#6b7280", "s", "M-4-4H4V4H-4z"),
    "bi-encoder": Look("#009e73", "^", "M0-5 5 4H-5z"),
    "full text": Look("#d55e00", "D", "M0-5.5 5.5 0 0 5.5-5.5 0z"),
    "MixLM": Look("#0072b2", "o", "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z"),
    "combination": Look("#9c4f96", "p", "M0-5.3 5-1.6 3.1 4.3H-3.1L-5-1.6z"),
    "oracle": Look("#1d2530", "*", "M0-6 1.6-2 6-1.9 2.6.8 3.7 5 0 2.6-3.7 5-2.6.8-6-1.9-1.6-2z"),
    "other": Look("#8a6d1f", "v", "M0 5 5-4H-5z"),
}


def cast(table: Standings) -> list[Row]:
    """At most one row of each kind: the first stage, the teacher, and the best by mean of the others."""
    chosen = [best_of(table, kind) for kind in ("MixLM", "full text", "combination", "bi-encoder", "other")]
    teacher = table.row(table.teacher)
    if teacher is not None:
        chosen = [teacher if row is not None and row.kind == teacher.kind else row for row in chosen]
    first_stage = next((row for row in table.rows if row.kind == "first stage"), None)
    return [row for row in (*chosen, first_stage) if row is not None]


def best_of(table: Standings, kind: Kind) -> Row | None:
    """The row of that kind with the highest mean; of those that ran nowhere but on some collections, the first."""
    rows = [row for row in table.rows if row.kind == kind]
    return max(rows, key=lambda row: -1.0 if row.mean is None else row.mean, default=None)


def legible(name: str, limit: int = 36) -> str:
    """A name that fits into a picture: one line, no characters that XML has not.

    >>> legible("two\\nlines"), legible("a name of many words", 10)
    ('two lines', 'a name of…')
    """
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(name.split()))
    return name if len(name) <= limit else f"{name[: limit - 1].rstrip()}…"
