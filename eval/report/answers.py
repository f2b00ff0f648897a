"""What a buyer asks: is it worth switching, or is something cheaper as good? Answered from every query's values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean

from mixlm_rerank import numbers
from mixlm_rerank.eval.significance import FEWEST, Interval, Verdict, interval
from mixlm_rerank.eval.standings import Row, Standings
from mixlm_rerank.eval.tables import listed

__all__ = ["Difference", "Finding", "answers", "difference"]

EQUAL = 0.01  # of a measure: what nobody would pay for
FASTER = 1.2  # times: less may be how it was timed


@dataclass(frozen=True)
class Finding:
    """A sentence or two, and the word that they stand under."""

    head: str
    text: str


@dataclass(frozen=True)
class Difference:
    """One system minus another, over the queries of all collections.

    Attributes:
        mean: over collections, each counting alike.
        interval: of the mean, 95%, bootstrap over queries.
        queries: how many; the rest is over all of them.
        won, lost: the differences of the queries on which the system is better, and worse.
    """

    mean: float
    interval: Interval
    queries: int
    won: tuple[float, ...]
    lost: tuple[float, ...]

    @property
    def resolution(self) -> float:
        """Half of the interval: a smaller difference cannot be told from none."""
        return (self.interval[1] - self.interval[0]) / 2

    def __str__(self) -> str:
        mean, low, high = map(numbers.difference, (self.mean, *self.interval))
        return f"{mean}, 95% interval {low} to {high}"


def difference(table: Standings, row: Row, other: Row) -> Difference | None:
    """None where the two were not measured on the same queries, or on too few."""
    samples = []
    for column in range(len(table.collections)):
        ours, theirs = row.by_query(column, table.measure), other.by_query(column, table.measure)
        if ours.keys() != theirs.keys():
            return None
        samples.append(tuple(value - theirs[qid] for qid, value in ours.items()))
    ends = interval(*samples)
    every = [value for sample in samples for value in sample]
    won, lost = tuple(value for value in every if value > 0), tuple(value for value in every if value < 0)
    return None if ends is None else Difference(fmean(map(fmean, samples)), ends, len(every), won, lost)


def answers(table: Standings) -> list[Finding]:
    """The two answers; none where there is nothing to compare. A difference that may be chance is called just that."""
    now, rows = table.row(table.baseline), table.ranked
    if now not in rows or len(rows) < 2:
        return []
    best = max(rows, key=lambda row: (row.best, _speed(row)))
    others = [row for row in rows if row is not now]
    faster = sorted((row for row in others if _speed(row) > FASTER * _speed(best) > 0), key=_speed, reverse=True)
    rival = max(others, key=lambda row: row.mean or 0.0) if best is now else best
    findings = [Finding("Worth switching?", _switch(table, now, rival))]
    return [*findings, Finding("As good and cheaper?", _cheaper(table, best, faster))] if faster else findings


def _switch(table: Standings, now: Row, row: Row) -> str:
    found = difference(table, row, now)
    if found is None:
        return _untold(row, now)
    low, high = found.interval
    told, doubt = "Yes" if low > 0 else "No", ""
    if low <= 0 <= high:
        told, doubt = "Not shown", ", which may be chance"
    elif [cell.verdict for cell in row.cells if cell] == [Verdict.NO_DIFFERENCE]:
        # where queries are few the interval is rough: on one collection a paired test has to agree with it
        told, doubt = "Not shown", ", but no paired test finds it significant"
    same = numbers.count(found.queries - len(found.won) - len(found.lost))
    return (
        f"{told}. {row.name} against {now.name}: {table.measure} {found}{doubt}. Better on {_many(found.won)}, worse "
        f"on {_many(found.lost)}, the same on {same} of {_queries(found)}.{_lower(table, row, now)}"
    )


def _lower(table: Standings, row: Row, now: Row) -> str:
    """The collections on which a system lies below, which a mean over several of them hides."""
    gaps = {
        name: (row.value(column, table.measure) or 0.0) - (now.value(column, table.measure) or 0.0)
        for column, name in enumerate(table.collections)
    }
    lower = [f"{name} ({numbers.difference(gap)})" for name, gap in gaps.items() if gap < 0]
    return f" Lower on {listed(lower)}." if lower and len(gaps) > 1 else ""


def _cheaper(table: Standings, best: Row, faster: Sequence[Row]) -> str:
    """The fastest that is as good; else the fastest that may be; else how much the best of them lacks."""
    told = [(row, difference(table, row, best)) for row in faster]
    for row, found in told:
        if found and found.interval[0] > -EQUAL:
            return f"Yes. {row.name} is as good as {best.name} ({found}, {_queries(found)}) and {_pace(row, best)}."
    for row, found in told:
        if found and found.interval[1] >= 0:
            return (
                f"Perhaps. {row.name} is as good as {best.name} as far as these {_queries(found)} tell ({found}), and "
                f"{_pace(row, best)}; they are too few to tell a difference smaller than "
                f"{numbers.measure(found.resolution)}."
            )
    nearest, found = max(told, key=lambda pair: pair[0].mean or 0.0)
    if found is None:
        return _untold(nearest, best)
    return f"No. The best of what is faster, {nearest.name}, lacks {table.measure} ({found})."


def _untold(row: Row, other: Row) -> str:
    return f"Too few queries to tell {row.name} from {other.name}: at least {FEWEST} of each collection are needed."


def _queries(found: Difference) -> str:
    return f"{numbers.count(found.queries)} queries"


def _many(values: Sequence[float]) -> str:
    by = f" (by {numbers.measure(abs(fmean(values)))} on average)" if values else ""
    return f"{numbers.count(len(values))}{by}"


def _pace(row: Row, best: Row) -> str:
    pace = _speed(row) / _speed(best)
    return "needs no reranking" if pace == inf else f"ranks {numbers.ratio(pace)} as many documents a second"


def _speed(row: Row) -> float:
    """Documents a second; a first stage has its ranking already, and what was not timed is taken for slow."""
    return inf if row.kind == "first stage" else row.documents_per_second or 0.0
