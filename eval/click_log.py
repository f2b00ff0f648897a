"""A position-based click model estimated from a click log: attraction of documents, examination of ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.lines import lines
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.clicks import ClickModel, Floats

__all__ = ["Impression", "logged_clicks", "read_click_log"]

HEADER = ["session", "query", "shown", "clicked"]
ITERATIONS = 1000
CONVERGED = 1e-7  # largest change of a click probability


@dataclass(frozen=True)
class Impression:
    """One page of results: the query's qid, the docids shown, best first, and those clicked on."""

    qid: str
    shown: tuple[str, ...]
    clicked: frozenset[str]


def read_click_log(path: str | Path) -> Iterator[Impression]:
    """Lines of ``session <tab> qid <tab> docids shown, best first <tab> docids clicked``.

    Docids are divided by blanks; the last column may be empty. A first line that names the columns is skipped.

    Raises InputError, while it is read, for a line of another width, an empty column, a document that is shown twice,
    and a click on a document that was not shown.
    """
    for number, line in lines(path):
        where = f"{path}, line {number}"
        columns = [column.strip() for column in line.split("\t")]
        if number == 1 and columns == HEADER:
            continue
        if len(columns) != 4:
            raise InputError(f"{where}: {len(columns)} columns, expected 4, divided by tabs ({', '.join(HEADER)})")
        for name, column in zip(HEADER[:3], columns, strict=False):
            if not column:
                raise InputError(f"{where}: the column {name!r} is empty; expected {', '.join(HEADER)}")
        shown, clicked = columns[2].split(), frozenset(columns[3].split())
        twice = next((docid for docid, count in Counter(shown).items() if count > 1), None)
        if twice is not None:
            raise InputError(f"{where}: document {twice!r} is shown twice")
        unknown = sorted(clicked.difference(shown))
        if unknown:
            raise InputError(f"{where}: a click on document {unknown[0]!r}, which is not among those shown")
        yield Impression(columns[1], tuple(shown), clicked)


def logged_clicks(log: Iterable[Impression], depth: int = 10, name: str = "position-based") -> ClickModel:
    """The position-based model that makes the clicks of a log most likely.

    Estimated by expectation maximisation (Chuklin, Markov and de Rijke, Click Models for Web Search, 2015, chapter 4).
    The prior of each pair of query and document is one more impression, of average attraction; a document that was
    never shown for a query counts as average. Queries are asked as often as in the log.

    Args:
        log: what was shown and clicked.
        depth: ranks to look at; fewer where no page shows so many.

    Raises InputError for a log that is empty, has no click, or whose ranks have no document in common: how often a
    rank is looked at can only be told from documents that stand at different ranks.
    """
    shows: Counter[tuple[str, str, int]] = Counter()
    clicks: Counter[tuple[str, str, int]] = Counter()
    asked: Counter[str] = Counter()
    for page in log:
        asked[page.qid] += 1
        for rank, docid in enumerate(page.shown[:depth]):
            shows[page.qid, docid, rank] += 1
            clicks[page.qid, docid, rank] += docid in page.clicked
    if not shows:
        raise InputError("the click log is empty: expected lines of session, query, shown, clicked")
    if not clicks.total():
        raise InputError(f"the click log has no click on the first {depth} documents of {asked.total():,} sessions")
    pairs = {pair: row for row, pair in enumerate(dict.fromkeys((qid, docid) for qid, docid, _ in shows))}
    cells = (
        np.array([pairs[qid, docid] for qid, docid, _ in shows]),
        np.array([rank for _, _, rank in shows]),
    )
    shown = np.zeros((len(pairs), cells[1].max() + 1))
    clicked = np.zeros_like(shown)
    shown[cells], clicked[cells] = list(shows.values()), list(clicks.values())
    _check_ranks(shown > 0)
    attraction, examination = _fit(shown, clicked)
    behaviour: dict[str, dict[str, tuple[float, float]]] = {qid: {} for qid in asked}
    for (qid, docid), row in pairs.items():
        behaviour[qid][docid] = (float(attraction[row]), 0.0)
    return ClickModel(name, examination, behaviour, (float(attraction.mean()), 0.0), asked)


def _check_ranks(shown: NDArray[np.bool_]) -> None:
    """Raises InputError unless all ranks are linked, by documents shown at both of them, directly or over others."""
    shared = shown.T @ shown
    apart = np.flatnonzero(~np.linalg.matrix_power(shared, len(shared))[0]) + 1
    if len(apart):
        raise InputError(
            f"the click log shows no document both at rank {' or '.join(map(str, apart))} and at a rank that can be "
            "compared with rank 1, so position cannot be told from attractiveness: log sessions in which results were "
            "swapped, or look at fewer ranks (depth)"
        )


def _fit(shown: Floats, clicked: Floats) -> tuple[Floats, Floats]:
    """Attraction of each pair and examination of each rank; both arguments are [pairs, ranks] counts."""
    attraction, examination = np.full((len(shown), 1), 0.5), np.full(shown.shape[1], 0.5)
    product = attraction * examination
    for _ in range(ITERATIONS):
        passed = (shown - clicked) / np.maximum(1 - product, 1e-12)
        attracted = clicked + passed * attraction * (1 - examination)
        examined = clicked + passed * (1 - attraction) * examination
        attraction = ((attracted.sum(1) + attraction.mean()) / (shown.sum(1) + 1))[:, None]
        examination = examined.sum(0) / shown.sum(0)
        before, product = product, attraction * examination
        if np.abs(product - before).max() < CONVERGED:
            break
    highest = examination.max()  # only the product is determined: the rank looked at most is always looked at
    return attraction[:, 0] * highest, examination / highest
