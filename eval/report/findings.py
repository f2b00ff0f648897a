"""The findings in words: whether to switch, whether something cheaper is as good, where MixLM stands and loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean
from typing import NamedTuple

from mixlm_rerank import numbers
from mixlm_rerank.eval.significance import ALPHA, FEWEST, Interval, Verdict, compare_pairs, interval
from mixlm_rerank.eval.standings import Row, Standings, best_of

__all__ = ["Difference", "Finding", "answers", "difference", "summary"]

JUDGED_GAP = 0.05  # a share of judged documents this far below the baseline's may hide a system's quality
PERMUTATIONS = 10_000
EQUAL = 0.01  # of a measure: a difference too small to pay for
POWERED = 2.80 / 1.96  # standard errors of a difference that a test at .05 finds with power .8, over the interval's
FASTER = 1.2  # times; a smaller ratio may be timing noise


class Finding(NamedTuple):
    """A sentence or two, and their heading."""

    head: str
    text: str


@dataclass(frozen=True)
class Difference:
    """One system minus another, over the queries of all collections."""

    mean: float  # over collections, equally weighted
    interval: Interval  # of the mean, 95%, bootstrap over queries; wider where the system was chosen among several
    queries: int
    won: list[float]  # the differences of the queries on which the system is better
    lost: list[float]  # the differences of the queries on which it is worse
    among: int = 1  # how many systems this one is the best of, on the same queries

    def __str__(self) -> str:
        mean, low, high = map(numbers.difference, (self.mean, *self.interval))
        chosen = f" (corrected for the choice among {self.among:,})" if self.among > 1 else ""
        return f"{mean}, 95% interval {low} to {high}{chosen}"


def difference(table: Standings, row: Row, other: Row, among: int = 1) -> Difference | None:
    """``row`` minus ``other``; None if their queries differ or are too few. ``among``: for Bonferroni's correction."""
    samples = []
    for column in range(len(table.collections)):
        ours, theirs = row.by_query(column, table.measure), other.by_query(column, table.measure)
        if ours.keys() != theirs.keys():
            return None
        samples.append(tuple(value - theirs[qid] for qid, value in ours.items()))
    ends, every = interval(*samples, confidence=1 - ALPHA / among), [value for sample in samples for value in sample]
    won, lost = [value for value in every if value > 0], [value for value in every if value < 0]
    return None if ends is None else Difference(fmean(map(fmean, samples)), ends, len(every), won, lost, among)


def answers(table: Standings) -> list[Finding]:
    """The two answers; none if there is nothing to compare. They state when a difference may be chance."""
    now, rows = table.row(table.baseline), table.ranked
    if now not in rows or len(rows) < 2:
        return []
    best = max(table.best, key=_speed)
    others = [row for row in rows if row is not now]
    faster = sorted((row for row in others if _speed(row) > FASTER * _speed(best) > 0), key=_speed, reverse=True)
    rival = max(others, key=lambda row: row.mean or 0.0) if best is now else best
    findings = [Finding("Worth switching?", _switch(table, now, rival, len(others)))]
    return [*findings, Finding("As good and cheaper?", _cheaper(table, best, faster))] if faster else findings


def _switch(table: Standings, now: Row, row: Row, among: int) -> str:
    found = difference(table, row, now, among)
    if found is None:
        return _untold(row, now)
    low, high = found.interval
    told, doubt = "Yes" if low > 0 else "No", ""
    if low <= 0 <= high:
        told, doubt = "Not shown", ", which may be chance"
    elif row.verdicts == (Verdict.NO_DIFFERENCE,):
        # with few queries the interval is rough: on a single collection a paired test has to agree with it
        told, doubt = "Not shown", ", but no paired test finds it significant"
    better, worse = (
        f"{len(values):,}" + (f" (by {numbers.measure(abs(fmean(values)))} on average)" if values else "")
        for values in (found.won, found.lost)
    )
    same = found.queries - len(found.won) - len(found.lost)
    text = (
        f"{told}. {row.name} against {now.name}: {table.measure} {found}{doubt}. Better on {better}, worse on {worse}, "
        f"the same on {same:,} of {found.queries:,} queries."
    )
    # collections on which the row is below the baseline, which the mean over collections hides
    gaps = [(row.value(n, table.measure) or 0.0) - (now.value(n, table.measure) or 0.0) for n in range(len(now.on))]
    lower = [
        f"{name} ({numbers.difference(gap)})" for name, gap in zip(table.collections, gaps, strict=True) if gap < 0
    ]
    return f"{text} Lower on {numbers.listed(lower)}." if lower and len(gaps) > 1 else text


def _cheaper(table: Standings, best: Row, faster: Sequence[Row]) -> str:
    """The fastest row that is as good as ``best``; else the fastest that may be; else how much the best one lacks."""
    told = [(row, difference(table, row, best)) for row in faster]
    for row, found in told:
        if found and found.interval[0] > -EQUAL:
            told_by = f"{found}, {found.queries:,} queries"
            return f"Yes. {row.name} is as good as {best.name} ({told_by}) and {_pace(row, best)}."
    for row, found in told:
        if found and found.interval[1] >= 0:
            low, high = found.interval
            return (
                f"Perhaps. {row.name} is not shown to be worse than {best.name} ({found}), and {_pace(row, best)}. "
                f"With power .8 these {found.queries:,} queries show only differences of "
                f"{numbers.measure(POWERED * (high - low) / 2)} or more."
            )
    nearest, found = max(told, key=lambda pair: pair[0].mean or 0.0)
    if found is None:
        return _untold(nearest, best)
    return f"No. The best of what is faster, {nearest.name}, lacks {table.measure} ({found})."


def _untold(row: Row, other: Row) -> str:
    return f"Too few queries to tell {row.name} from {other.name}: at least {FEWEST} of each collection are needed."


def _pace(row: Row, best: Row) -> str:
    pace = _speed(row) / _speed(best)
    return "needs no reranking" if pace == inf else f"ranks {numbers.ratio(pace)} as many documents a second"


def _speed(row: Row) -> float:
    """Documents a second; infinite for a first stage, which needs no reranking; 0 for a row that was not timed."""
    return inf if row.kind == "first stage" else row.documents_per_second or 0.0


def summary(table: Standings, judged: str | None) -> list[Finding]:
    """The findings in a few sentences, which state when no test finds a difference significant.

    ``judged``: the measure of how many of the shown documents are judged, "Judged@10"; None if not measured.
    """
    mixlm = best_of(table, "MixLM")
    full = table.row(table.teacher) or best_of(table, "full text")
    texts = {
        "MixLM": _place(table, mixlm) if mixlm else "",
        "Against the full text": _against(table, mixlm, full) if mixlm and full and mixlm is not full else "",
        "Losses": _losses(table),
        "Read with care": _unjudged(table, judged) if judged else "",
    }
    return [*answers(table), *(Finding(head, text) for head, text in texts.items() if text)]


def _place(table: Standings, row: Row) -> str:
    if row.mean is None:
        return ""
    means = [round(other.mean or 0.0, numbers.DECIMALS) for other in table.ranked]
    place = 1 + sum(mean > round(row.mean, numbers.DECIMALS) for mean in means)
    budgets = sum(other.kind == "MixLM" for other in table.ranked)
    best_of_all = f", the best of {budgets} MixLM here" if budgets > 1 else ""
    text = f"{row.name}{best_of_all}: {table.measure} {numbers.measure(row.mean)}, place {place} of {len(means)}."
    found = {name: told for name, told in zip(table.collections, row.verdicts, strict=True) if told is not None}
    # if the row is the only best one, the first answer already compares it
    return text + (f" Against {table.against}: {_by_verdict(found)}." if found and table.best != [row] else "")


def _against(table: Standings, row: Row, full: Row) -> str:
    if not row.mean or not full.mean:
        return ""
    text = f"{row.name} reaches {numbers.percent(row.mean / full.mean)} of the {table.measure} of {full.name}"
    ours, theirs = row.documents_per_second, full.documents_per_second
    if ours and theirs:
        speeds = f"{numbers.speed(ours)} against {numbers.speed(theirs)}"
        text += f" and ranks {numbers.ratio(ours / theirs)} as many documents a second ({speeds})"
    pairs = {
        collection: (full.by_query(column, table.measure), row.by_query(column, table.measure))
        for column, collection in enumerate(table.collections)
    }
    tested = compare_pairs(pairs, permutations=PERMUTATIONS)  # Holm-corrected over the collections
    verdicts = {found.system: found.verdict for found in tested}
    return f"{text}. Tested against {full.name}: {_by_verdict(verdicts)}." if verdicts else f"{text}."


def _losses(table: Standings) -> str:
    """Losses of all MixLM systems; empty for a single one, which is already described."""
    rows = [row for row in table.rows if row.kind == "MixLM" and set(row.verdicts) != {None}]
    lost = {
        row.name: [name for name, told in zip(table.collections, row.verdicts, strict=True) if told == Verdict.WORSE]
        for row in rows
    }
    if len(rows) < 2:
        return ""
    if any(lost.values()):
        told = "; ".join(f"{name} on {numbers.listed(where)}" for name, where in lost.items() if where)
        return f"Significantly worse than {table.against}: {told}."
    return f"No MixLM is significantly worse than {table.against} on any collection."


def _unjudged(table: Standings, judged: str) -> str:
    baseline = table.row(table.baseline)
    if baseline is None:
        return ""
    gaps = [
        (usual - value, row.name, table.collections[column], value, usual)
        for row in table.rows
        for column in range(len(row.on))
        if row.kind != "oracle"
        and (value := row.value(column, judged)) is not None
        and (usual := baseline.value(column, judged)) is not None
    ]
    gap, name, where, value, usual = max(gaps)
    if gap <= JUDGED_GAP:
        return ""
    return (
        "Some systems bring up documents that nobody judged; those count as not relevant, so their true values may be "
        f"higher. The widest gap: {judged} of {name} is {numbers.measure(value)} on {where}, that of {baseline.name} "
        f"{numbers.measure(usual)}."
    )


def _by_verdict(verdicts: Mapping[str, Verdict]) -> str:
    """ "significantly better on A and B; no significant difference on C"."""
    parts = []
    for kind in sorted(set(verdicts.values()), reverse=True):
        names = [name for name, found in verdicts.items() if found == kind]
        every = f"{'all' if kind else 'any of the'} {len(names)} collections"
        parts.append(f"{kind.words} on {every if len(names) == len(verdicts) > 1 else numbers.listed(names)}")
    return "; ".join(parts)
