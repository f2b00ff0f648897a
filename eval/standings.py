"""How systems stand over all collections: one row a system (or group of seeds), one cell a collection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, harmonic_mean, stdev

from mixlm_rerank.eval.results import CollectionResult, Evaluation, SystemResult
from mixlm_rerank.eval.significance import Interval, Verdict, interval
from mixlm_rerank.numbers import DECIMALS
from mixlm_rerank.systems.protocol import Kind

__all__ = ["Cell", "Row", "Standings", "best_of", "cast", "in_order", "kind_of", "standings"]


@dataclass(frozen=True)
class Cell:
    """A row on one collection, or its mean over all.

    Attributes:
        value: the measure; of several seeds, their mean.
        verdict: against the collection's baseline; of several seeds, what holds for each of them. None for the
            baseline itself, for the mean, and for the oracle, which is no system to choose.
        best: no other row but the oracle has a higher value.
        interval: 95%, over queries; None for too few of them.
    """

    value: float
    verdict: Verdict | None
    best: bool
    interval: Interval | None


@dataclass(frozen=True)
class Row:
    """A system, or all seeds of one.

    Attributes:
        members: for each collection, its systems: none where it did not run, several where there are seeds.
        cells: for each collection; None where it did not run.
        total: over collections; None unless it ran on all of them.
        sd: of the seeds' means (n - 1); None with fewer than two seeds.
    """

    name: str
    kind: Kind
    members: tuple[tuple[SystemResult, ...], ...]
    cells: tuple[Cell | None, ...] = ()
    total: Cell | None = None
    sd: float | None = None

    @property
    def mean(self) -> float | None:
        return self.total.value if self.total else None

    @property
    def best(self) -> bool:
        """No other row but the oracle has a higher mean."""
        return self.total is not None and self.total.best

    @property
    def seeds(self) -> int:
        """How many runs the row stands for."""
        return max(map(len, self.members))

    @property
    def documents_per_second(self) -> float | None:
        """The harmonic mean: the speed for the same number of documents of each collection. None unless timed on all
        of them.
        """
        timed = [[one.efficiency.documents_per_second for one in own if one.efficiency] for own in self.members]
        return harmonic_mean(map(harmonic_mean, timed)) if all(timed) else None

    def value(self, column: int, measure: str) -> float | None:
        """Any measure on one collection: of several seeds, their mean; None where the row did not run."""
        return fmean(one.measures[measure] for one in self.members[column]) if self.members[column] else None

    def by_query(self, column: int, measure: str) -> dict[str, float]:
        """qid -> value, the mean over seeds; empty where they were not measured on the same queries."""
        values = [system.per_query.get(measure, {}) for system in self.members[column]]
        if not values or any(one.keys() != values[0].keys() for one in values):
            return {}
        return {qid: fmean(one[qid] for one in values) for qid in values[0]}


@dataclass(frozen=True)
class Standings:
    """The big table. ``baseline`` and ``teacher``: their names, None where collections differ in them (or lack one).

    ``queries``: how many are judged, for each collection.
    """

    measure: str
    collections: tuple[str, ...]
    queries: tuple[int, ...]
    baseline: str | None
    teacher: str | None
    rows: tuple[Row, ...]

    def row(self, name: str | None) -> Row | None:
        """The row of a system, by its own name or that of its seed group."""
        of = {system.name: row for row in self.rows for systems in row.members for system in systems}
        return (of | {row.name: row for row in self.rows}).get(name or "")

    @property
    def against(self) -> str:
        """The baseline, in words."""
        return self.baseline or "the collection's baseline"

    @property
    def ranked(self) -> list[Row]:
        """The rows that can be compared by mean."""
        return [row for row in self.rows if row.kind != "oracle" and row.mean is not None]


def standings(evaluation: Evaluation, measure: str | None = None) -> Standings:
    """All systems on one measure: first stages at the top, oracles at the bottom, the rest as they stand.

    ``measure``: the main one for ``None``. Others have no verdicts, and Judged has no best.
    """
    main, collections = evaluation.measures[0], evaluation.collections
    measure = measure or main
    groups: dict[str, list[list[SystemResult]]] = {}
    kinds: dict[str, Kind] = {}
    for column, collection in enumerate(collections):
        for system in collection.systems:
            name = system.seed_group or system.name
            groups.setdefault(name, [[] for _ in collections])[column].append(system)
            kinds.setdefault(name, kind_of(collection, system))
    rows = [Row(name, kinds[name], tuple(map(tuple, members))) for name, members in groups.items()]
    rivals = [row.name for row in rows if row.kind != "oracle" and not measure.startswith("Judged")]
    columns = range(len(collections))

    def value(row: Row, column: int | None) -> float | None:
        """``column`` None stands for all of them."""
        values = [row.value(one, measure) for one in (columns if column is None else [column])]
        there = [found for found in values if found is not None]
        return fmean(there) if len(there) == len(values) else None

    def highest(column: int | None) -> float:
        """As tables show it: what looks equal is equally best."""
        found = [value(row, column) for row in rows if row.name in rivals]
        return max((round(one, DECIMALS) for one in found if one is not None), default=0.0)

    tops = {column: highest(column) for column in (*columns, None)}

    def cell(row: Row, column: int | None) -> Cell | None:
        found, rival = value(row, column), row.name in rivals
        if found is None:
            return None
        samples = [tuple(row.by_query(one, measure).values()) for one in (columns if column is None else [column])]
        tested = _verdict(row.members[column]) if rival and measure == main and column is not None else None
        return Cell(found, tested, rival and round(found, DECIMALS) == tops[column], interval(*samples))

    def filled(row: Row) -> Row:
        seeds = list(zip(*row.members, strict=True)) if len(set(map(len, row.members))) == 1 else []
        means = [fmean(system.measures[measure] for system in seed) for seed in seeds]
        sd = stdev(means) if len(means) > 1 else None
        return replace(row, cells=tuple(cell(row, column) for column in columns), total=cell(row, None), sd=sd)

    def shared(names: Iterable[str | None]) -> str | None:
        found = set(names)
        return found.pop() if len(found) == 1 else None

    return Standings(
        measure,
        tuple(collection.name for collection in collections),
        tuple(collection.queries for collection in collections),
        shared(collection.baseline for collection in collections),
        shared(collection.teacher for collection in collections),
        tuple(sorted(map(filled, rows), key=lambda row: in_order(row.kind))),
    )


def cast(table: Standings) -> list[Row]:
    """Rows that pictures show in colour, one of each kind: first stage, teacher, and the best by mean of the others."""
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


def kind_of(collection: CollectionResult, system: SystemResult) -> Kind:
    """The system's kind; where it was left open, what the collection's roles and the system's name tell."""
    if system.kind != "other":
        return system.kind
    if system.name == collection.first_stage:
        return "first stage"
    if system.name.lower() == "oracle":
        return "oracle"
    if system.tokens is not None:
        return "MixLM"
    return "full text" if system.name == collection.teacher else "other"


def in_order(kind: Kind) -> int:
    """What tables are sorted by: the first stage at the top, the oracle at the bottom."""
    return {"first stage": 0, "oracle": 2}.get(kind, 1)


def _verdict(systems: Sequence[SystemResult]) -> Verdict | None:
    verdicts = [system.comparison.verdict for system in systems if system.comparison is not None]
    if not verdicts:
        return None
    low, high = min(verdicts), max(verdicts)
    return low if low > 0 else high if high < 0 else Verdict.NO_DIFFERENCE
