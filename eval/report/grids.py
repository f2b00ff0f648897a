"""The report's tables: all collections on one measure, and the details of one collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from statistics import fmean, stdev
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.eval import tables
from mixlm_rerank.eval.results import CollectionResult, Evaluation, SystemResult
from mixlm_rerank.eval.significance import Verdict, interval
from mixlm_rerank.eval.standings import Row, Standings, standings
from mixlm_rerank.eval.tables import EMPTY, Cell, Column, Columns, Table, field, filled, number
from mixlm_rerank.systems.protocol import Efficiency

__all__ = ["big_table", "collection_tables", "latex_table", "markdown_table", "tests"]


def markdown_table(evaluation: Evaluation) -> str:
    """Markdown tables of each measure: every system on every collection, its mean, and documents/s where measured.

    Best values are bold, 95% intervals in brackets; marks show where a difference to the baseline is significant on the
    main measure. The line below each table explains it.
    """
    found = filter(None, (big_table(standings(evaluation, measure)) for measure in evaluation.measures))
    return "\n".join(f"{tables.markdown(one)}\n\n{tables.markdown_escaped(one.caption)}\n" for one in found)


def latex_table(evaluation: Evaluation) -> str:
    r"""LaTeX: a ``table`` with a caption per measure, for ``\usepackage{booktabs}``; names are escaped."""
    found = filter(None, (big_table(standings(evaluation, measure)) for measure in evaluation.measures))
    return "\n".join([r"% needs \usepackage{booktabs}", *map(tables.latex, found)])


def big_table(table: Standings) -> Table | None:
    """Systems by collections on one measure, with the mean and documents/s where there are any."""
    measure, every = table.measure, range(len(table.collections))

    def cell(column: int, row: Row) -> Cell:
        return _mean_cell(row.value(column, measure), [row.by_query(column, measure)], row.verdicts[column])

    def mean(row: Row) -> Cell:
        return _mean_cell(row.mean, [row.by_query(column, measure) for column in every])

    def seeds(row: Row) -> str:
        spread = row.spread(measure)
        shown = "" if spread is None else f", ± {numbers.measure(spread)}"
        return f"{row.runs} seeds{shown}" if row.runs > 1 else ""

    heads = [f"{name}, n={count:,}" for name, count in zip(table.collections, table.queries, strict=True)]
    best = not measure.startswith("Judged")
    columns: Columns = [
        *((Column(head, "n: judged queries", True, best), partial(cell, place)) for place, head in enumerate(heads)),
        *([(Column("mean", "over collections", best=best), mean)] if len(heads) > 1 else []),
        field("documents_per_second", "documents/s", "harmonic mean over collections", numbers.speed),
    ]
    found = filled("", columns, [(row.name, row.kind, row) for row in table.rows], seeds)
    return found and replace(found, caption=_explained(table, any(c.small for line in found.lines for c in line.cells)))


def _explained(table: Standings, intervals: bool) -> str:
    """Caption of the big table; it explains only the marks that occur."""
    verdicts = {verdict for row in table.rows for verdict in row.verdicts} - {None}
    marks = [f"{found.sign} {found.words}" for found in sorted(Verdict, reverse=True) if found and found in verdicts]
    tests = "paired t-test and randomisation test"
    told = {
        f"{table.measure} over all judged queries (n); best in bold (the oracle apart).": True,
        "Intervals: 95%, bootstrap over queries.": intervals,
        "Mean: over collections, not tested.": len(table.collections) > 1,
        "Several seeds: their mean ± the standard deviation of their means; a mark holds for every seed.": any(
            row.runs > 1 for row in table.rows
        ),
        f"Against {table.against}: {'; '.join(marks)} ({tests}, p < .05 after Holm's correction).": marks,
        f"No difference to {table.against} is significant ({tests}, Holm).": verdicts and not marks,
    }
    return " ".join(sentence for sentence, holds in told.items() if holds)


def collection_tables(table: Standings, column: int, collection: CollectionResult, measures: list[str]) -> list[Table]:
    """All tables of one collection that are not empty; ``column``: its place in ``table``."""
    rows = [(system.name, row.kind, system) for row in table.rows for system in row.seeds[column]]
    # the oracle is a ceiling: it has neither tests nor fidelity
    plain = [(n, kind, replace(s, comparison=None, fidelity=None) if kind == "oracle" else s) for n, kind, s in rows]
    name = collection.teacher or ""
    taught = next((system for _, _, system in rows if system.name == name), None)
    found = [
        filled("Measures, over all judged queries", _measures(collection, measures), plain),
        _pairs(table, column),
        filled(f"Fidelity to {name}", _fidelity(measures[0], name, taught), plain) if name else None,
        filled(
            "Efficiency, one query at a time", _efficiency(name, taught), [(n, k, s.efficiency) for n, k, s in rows]
        ),
        _seeds(table, column, measures),
    ]
    return [one for one in found if one is not None]


def _measures(collection: CollectionResult, measures: list[str]) -> Columns:
    """Columns of every measure; for the first one also the difference to the baseline and its tests."""
    against = f"{measures[0]}, difference to {collection.baseline}"

    def value(name: str, system: SystemResult) -> Cell:
        return _mean_cell(system.measures[name], [system.per_query.get(name, {})])

    return [
        *((Column(name, best=not name.startswith("Judged")), partial(value, name)) for name in measures),
        (Column(f"− {collection.baseline}", against, marked=True), _difference),
        *tests(f"{against}: ", f"queries on which {measures[0]} is higher/lower than that of {collection.baseline}"),
    ]


def _fidelity(measure: str, name: str, teacher: SystemResult | None) -> Columns:
    """Columns of how faithfully systems reproduce the teacher's ranking."""
    best = teacher.measures[measure] if teacher else None

    def ratio(system: SystemResult) -> Cell:
        return number(system.measures[measure] / best, numbers.percent) if system.fidelity and best else EMPTY

    return [
        (Column(f"{measure} ratio", f"{measure} of the system over that of {name}"), ratio),
        field("fidelity.rank_biased_overlap", "RBO", "rank-biased overlap, p = .9"),
        field("fidelity.overlap", "overlap@10", f"share of the first ten of {name} that are among the first ten"),
        field("fidelity.kendall_tau", "Kendall's tau", "of the order of the documents that both rank"),
        field("fidelity.same_first", "same first", "queries with the same first document", numbers.percent),
    ]


def _efficiency(name: str, teacher: SystemResult | None) -> Columns:
    """Columns of the cost of ranking."""
    speed, milliseconds = numbers.speed, numbers.milliseconds
    of_teacher = teacher.efficiency.documents_per_second if teacher and teacher.efficiency else None

    def ratio(own: Efficiency | None) -> Cell:
        return number(own.documents_per_second / of_teacher, numbers.ratio) if own and of_teacher else EMPTY

    of_document = "bytes that the system needs on disk for each document"
    return [
        field("documents_per_second", "documents/s", "candidates over the time spent on them", speed),
        (Column("× teacher", f"documents/s over that of {name}"), ratio),
        field("p50_ms", "p50, ms", "half of the queries took no longer", milliseconds),
        field("p99_ms", "p99, ms", "99 of 100 queries took no longer", milliseconds),
        field("index_bytes_per_document", "index/document", of_document, numbers.size),
        field("build_seconds", "build", "time to build the token index", numbers.duration),
        field("peak_memory_bytes", "memory", "peak of the process, models included", numbers.size),
    ]


def _seeds(table: Standings, column: int, measures: list[str]) -> Table | None:
    """Mean and standard deviation (n - 1) over the seeds of each system; None if none ran with several."""

    def spread(measure: str, row: Row) -> Cell:
        found = [system.measures[measure] for system in row.seeds[column]]
        return Cell(f"{numbers.measure(fmean(found))} ± {numbers.measure(stdev(found))}", fmean(found))

    columns: Columns = [(Column(name), partial(spread, name)) for name in measures]
    rows = [(row.name, row.kind, row) for row in table.rows if len(row.seeds[column]) > 1]
    caption = "Several seeds: mean ± standard deviation"
    return filled(caption, columns, rows, lambda row: f"{len(row.seeds[column])} seeds")


def _pairs(table: Standings, column: int) -> Table | None:
    """Queries won, tied and lost by each system against every other system; None for a single system."""
    rows = [row for row in table.rows if row.kind != "oracle" and row.by_query(column, table.measure)]

    def against(other: Row, row: Row) -> Cell:
        ours, theirs = (one.by_query(column, table.measure) for one in (row, other))
        gains = [ours[qid] - theirs[qid] for qid in ours.keys() & theirs.keys()]
        wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        return EMPTY if row is other else Cell(f"{wins}/{len(gains) - wins - losses}/{losses}", wins - losses)

    caption = f"Wins/ties/losses by {table.measure}: queries on which a row is above, level with, below a column"
    columns: Columns = [(Column(row.name), partial(against, row)) for row in rows]
    return filled(caption, columns, [(row.name, row.kind, row) for row in rows])


def tests(of: str, counted: str) -> Columns:
    """The columns of the paired tests. The arguments are hints: what is tested, and what is counted."""

    def cell(system: Any) -> Cell:
        found = system.comparison
        return EMPTY if found is None else Cell(f"{found.wins}/{found.losses}", found.wins - found.losses)

    text = numbers.p_value
    return [
        field("comparison.p_t", "p, t-test", f"{of}paired t-test, Holm-corrected", text),
        field("comparison.p_randomisation", "p, random.", f"{of}paired randomisation test, Holm-corrected", text),
        (Column("wins/losses", counted), cell),
    ]


def _difference(system: SystemResult) -> Cell:
    """The difference to the baseline, marked by the verdict of the paired tests."""
    found = system.comparison
    return Cell(numbers.difference(found.difference), found.difference, mark=found.verdict.sign) if found else EMPTY


def _mean_cell(value: float | None, samples: list[Mapping[str, float]], found: Verdict | None = None) -> Cell:
    """A mean with its interval; ``samples``: qid -> value, of each collection."""
    if value is None:
        return EMPTY
    ends = interval(*(tuple(sample.values()) for sample in samples))
    return Cell(numbers.measure(value), value, mark=found.sign if found else "", small=numbers.interval(ends))
