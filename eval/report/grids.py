"""The tables of the page: all collections on the main measure, and what there is to know of one collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean, stdev

from mixlm_rerank import numbers
from mixlm_rerank.eval.report.view import EMPTY, Cell, Column, Line, Table, value_cell
from mixlm_rerank.eval.results import CollectionResult, SystemResult
from mixlm_rerank.eval.significance import Interval, interval
from mixlm_rerank.eval.standings import Row, Standings, Verdict, kind_of, verdict
from mixlm_rerank.eval.tables import SIGNS, marks_explained

__all__ = ["big_table", "efficiency_table", "fidelity_table", "measures_table", "pairs_table", "seeds_table"]


def big_table(table: Standings) -> Table | None:
    """Systems against collections on the main measure; the mean and documents/s, where there are such."""
    columns = [Column(head, "n: judged queries", marked=True) for head in table.heads]
    columns += [Column("mean", "over collections"), Column("documents/s", "harmonic mean over collections")]
    several = len(table.collections) > 1

    def cells(row: Row) -> Iterator[Cell]:
        for cell in row.cells:
            yield _mean_cell(cell.value, cell.interval, cell.best, _mark(cell.verdict)) if cell else EMPTY
        yield _mean_cell(row.mean, row.interval, row.best) if several and row.mean is not None else EMPTY
        yield value_cell(row.documents_per_second, numbers.speed)

    def note(row: Row) -> str:
        spread = f", ± {numbers.measure(row.sd)}" if row.sd is not None else ""
        return f"{row.seeds} seeds{spread}" if row.seeds > 1 else ""

    lines = [Line(row.name, row.kind, tuple(cells(row)), note(row)) for row in table.rows]
    return Table(marks_explained(table), tuple(columns), tuple(lines)).pruned()


def measures_table(collection: CollectionResult, measures: list[str]) -> Table | None:
    """Every measure of every system; on the first one, the difference to the baseline and its tests."""
    rivals = [system for system in collection.systems if kind_of(collection, system) != "oracle"]
    highest = {name: max((numbers.measure(s.measures[name]) for s in rivals), default="") for name in measures}
    against = f"{measures[0]}, difference to {collection.baseline}"
    columns = [Column(name) for name in measures]
    columns += [
        Column(f"− {collection.baseline}", against, marked=True),
        Column("p, t-test", f"{against}: paired t-test, Holm-corrected"),
        Column("p, random.", f"{against}: paired randomisation test, Holm-corrected"),
        Column("wins/losses", f"queries on which {measures[0]} is higher/lower than that of {collection.baseline}"),
    ]

    def cells(system: SystemResult) -> Iterator[Cell]:
        ceiling = kind_of(collection, system) == "oracle"
        for name in measures:
            value = system.measures[name]
            best = numbers.measure(value) == highest[name] and not ceiling and not name.startswith("Judged")
            yield _mean_cell(value, interval(tuple(system.per_query.get(name, {}).values())), best)
        found = system.comparison
        if found is None or ceiling:
            yield from [EMPTY] * 4
        else:
            yield Cell(numbers.difference(found.difference), found.difference, mark=_mark(verdict(found)))
            yield value_cell(found.p_t, numbers.p_value)
            yield value_cell(found.p_randomisation, numbers.p_value)
            yield Cell(f"{found.wins}/{found.losses}", found.wins - found.losses)

    return _table(collection, "Measures, over all judged queries", columns, cells)


def fidelity_table(collection: CollectionResult, measure: str) -> Table | None:
    """How faithfully systems give the teacher's ranking; None without a teacher."""
    if collection.teacher is None:
        return None
    of_teacher = next((s.measures[measure] for s in collection.systems if s.name == collection.teacher), None)
    columns = [
        Column(f"{measure} ratio", f"{measure} of the system over that of {collection.teacher}"),
        Column("RBO", "rank-biased overlap, p = .9"),
        Column("overlap@10", f"share of the first ten of {collection.teacher} that are among the first ten"),
        Column("Kendall's tau", "of the order of the documents that both rank"),
        Column("same first", "queries with the same first document"),
    ]

    def cells(system: SystemResult) -> Iterator[Cell]:
        found = system.fidelity
        if found is None or kind_of(collection, system) == "oracle":
            yield from [EMPTY] * 5
        else:
            yield value_cell(system.measures[measure] / of_teacher if of_teacher else None, numbers.percent)
            yield value_cell(found.rank_biased_overlap, numbers.measure)
            yield value_cell(found.overlap, numbers.measure)
            yield value_cell(found.kendall_tau, numbers.measure)
            yield value_cell(found.same_first, numbers.percent)

    return _table(collection, f"Fidelity to {collection.teacher}", columns, cells)


def efficiency_table(collection: CollectionResult) -> Table | None:
    """What ranking cost; None where nothing was timed."""
    timed = {system.name: system.efficiency.documents_per_second for system in collection.systems if system.efficiency}
    of_teacher = timed.get(collection.teacher) if collection.teacher is not None else None
    columns = [
        Column("documents/s", "candidates over the time spent on them"),
        Column("× teacher", f"documents/s over that of {collection.teacher}"),
        Column("p50, ms", "half of the queries took no longer"),
        Column("p99, ms", "99 of 100 queries took no longer"),
        Column("index/document", "bytes that the system needs on disk for each document"),
        Column("build", "time to build the token index"),
        Column("memory", "peak of the process, models included"),
    ]

    def cells(system: SystemResult) -> Iterator[Cell]:
        found = system.efficiency
        if found is None:
            yield from [EMPTY] * 7
        else:
            speed = found.documents_per_second
            yield value_cell(speed, numbers.speed)
            yield value_cell(speed / of_teacher if of_teacher else None, numbers.ratio)
            yield value_cell(found.p50_ms, numbers.milliseconds)
            yield value_cell(found.p99_ms, numbers.milliseconds)
            yield value_cell(found.index_bytes_per_document, numbers.size)
            yield value_cell(found.build_seconds, numbers.duration)
            yield value_cell(found.peak_memory_bytes, numbers.size)

    return _table(collection, "Efficiency, one query at a time", columns, cells)


def seeds_table(table: Standings, column: int, measures: list[str]) -> Table | None:
    """Mean and standard deviation (n - 1) over the seeds of one system; None where nothing ran with several."""
    lines = []
    for row in table.rows:
        systems = row.members[column]
        if len(systems) > 1:
            values = {name: [system.measures[name] for system in systems] for name in measures}
            cells = (
                Cell(f"{numbers.measure(fmean(found))} ± {numbers.measure(stdev(found))}", fmean(found))
                for found in values.values()
            )
            lines.append(Line(row.name, row.kind, tuple(cells), f"{len(systems)} seeds"))
    caption = "Several seeds: mean ± standard deviation"
    return Table(caption, tuple(Column(name) for name in measures), tuple(lines)).pruned()


def _table(
    collection: CollectionResult, caption: str, columns: list[Column], cells: Callable[[SystemResult], Iterator[Cell]]
) -> Table | None:
    """The first stage at the top, the oracle at the bottom; columns and lines without any value left out."""
    place = {"first stage": 0, "oracle": 2}
    ordered = sorted(collection.systems, key=lambda system: place.get(kind_of(collection, system), 1))
    lines = [Line(system.name, kind_of(collection, system), tuple(cells(system))) for system in ordered]
    return Table(caption, tuple(columns), tuple(lines)).pruned()


def _mean_cell(value: float, ends: Interval | None, best: bool, mark: str = "") -> Cell:
    return Cell(numbers.measure(value), value, best, mark, numbers.interval(ends))


def pairs_table(table: Standings, column: int) -> Table | None:
    """Queries won, tied and lost by each system against each other one; None for a single system."""
    rows = [row for row in table.rows if row.kind != "oracle" and row.by_query(column, table.measure)]
    if len(rows) < 2:
        return None
    values = {row.name: row.by_query(column, table.measure) for row in rows}

    def cell(name: str, other: str) -> Cell:
        pairs = [(values[name][qid], values[other][qid]) for qid in values[name].keys() & values[other].keys()]
        wins, losses = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
        return EMPTY if name == other else Cell(f"{wins}/{len(pairs) - wins - losses}/{losses}", wins - losses)

    lines = [Line(row.name, row.kind, tuple(cell(row.name, other) for other in values)) for row in rows]
    caption = f"Wins/ties/losses by {table.measure}: queries on which a row is above, level with, below a column"
    return Table(caption, tuple(map(Column, values)), tuple(lines))


def _mark(found: Verdict | None) -> str:
    return SIGNS.get(found, "") if found is not None else ""
